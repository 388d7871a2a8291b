"""Four logs of four kinds, each by the commands `new`, `check`, `train` and then served: sessions alone, clicks, ratings, and a shop whose
categories have one level."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from components.release.releases import released
from pipelines.cli import app
from serving.bundle.bundle import Bundle
from serving.event_meanings import Positive
from serving.http.routes import Api
from serving.query import Request
from serving.recommender import Recommender
from serving.resilience.ladder import Ladder
from serving.state.user_state import StateTable, UserState
from serving.system import System, load_system
from serving.worker.options import Options
from tests.serving.resilience.test_breaker import Clock
from tests.serving.resilience.test_never_shown import light_only, no_models, without
from tests.serving.servers import in_process
from tests.world.news import news
from tests.world.plain import END, Rows, plain, write

pytestmark = pytest.mark.slow
LATER = END + timedelta(seconds=30)
RUNGS = {  # no list by region: these sessions name none
    "full": lambda _: None,
    "light": light_only,
    "linear": no_models,
    "static": without("_cached", "_linear", "_popular"),
}


@dataclass(frozen=True)
class Learnt:
    """What the commands made of one log."""

    file: Path
    home: Path
    checked: str

    @property
    def system(self) -> System:
        return load_system(str(self.file))

    @property
    def bundle(self) -> Path:
        return released(str(self.file), self.home).bundle

    @property
    def users(self) -> StateTable:
        return StateTable.load(released(str(self.file), self.home).users)

    @asynccontextmanager
    async def door(self, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
        """A server over the bundle, at the end of its rows."""
        found = released(str(self.file), self.home)
        options = Options(
            found.bundle, str(self.file), users=found.users, events=f"dir:{folder}", clock=END.isoformat(), log_level="error",
            exposures_sample=1.0,
        )  # fmt: skip
        parts = in_process(options)
        assert isinstance(parts.app, Api)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door") as client:
            yield client
        for close in parts.closers:
            close()


def learnt(rows: Rows, folder: Path, *left_out: str) -> Learnt:
    """Each command ends well; `left_out`: columns of the events that this log has not."""
    data = write({name: held for name, held in rows.items() if held}, folder / "data")
    pq.write_table(pq.read_table(data / "events.parquet").drop_columns(list(left_out)), data / "events.parquet")
    file, home = folder / "mine.py", folder / "home"
    said = []
    for words in (["new", "mine", "--out", str(folder)], ["check", str(file)], ["train", str(file), "--fast", "--home", str(home)]):
        done = CliRunner().invoke(app, [*words, "--data", str(data)])
        assert done.exit_code == 0, (words, done.output, done.exception)
        said.append(done.output)
    done = CliRunner().invoke(app, ["promote", str(file), "--home", str(home)])
    assert done.exit_code == 0, done.output
    return Learnt(file, home, said[1])


async def listed(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    reply = await client.post("/v1/recommendations", json=asked)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def post(client: httpx.AsyncClient, *events: dict[str, Any]) -> None:
    made = [{"event_id": f"new {event['item_id']}", **event} for event in events]
    reply = await client.post("/v1/events", json={"events": made})
    assert (reply.status_code, reply.json()["accepted"]) == (200, len(events)), reply.text


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    return learnt(news(), tmp_path_factory.mktemp("news"), "user_id")


def test_a_log_of_sessions_is_known_for_what_it_is(sessions: Learnt) -> None:
    system = sessions.system
    assert (system.learning.asked, system.learning.positives) == ("amid sessions", ("click",))
    assert system.kinds == ("sessions", "linear", "trending")
    assert "each is asked at one moment of it for what it goes on to" in sessions.checked


async def test_a_session_alone_is_answered_and_each_click_moves_what_comes_next(sessions: Learnt, tmp_path: Path) -> None:
    """After t3p0 the pages of topic 3, and those that all have, stand first; also when the newest page says nothing of the topic."""
    async with sessions.door(tmp_path) as client:
        nobody = await listed(client, session_id="fresh", k=8)
        await post(client, {"event_type": "click", "session_id": "fresh", "item_id": "t3p0", "timestamp": END.isoformat()})
        one = await listed(client, session_id="fresh", k=8)
        await post(client, {"event_type": "click", "session_id": "fresh", "item_id": "h0", "timestamp": LATER.isoformat()})
        two = await listed(client, session_id="fresh", k=8)
        other = await listed(client, session_id="another", k=8)
        why = (await client.get(f"/v1/why/{two['request_id']}")).json()
    assert ids(nobody) == ids(other) != ids(one)
    assert all(item.startswith(("t3", "h")) for item in ids(one)[:3])  # ten of 98 pages
    assert sum(item.startswith("t3") for item in ids(two)[:3]) >= 2
    assert "t3p0" not in ids(two)
    assert "h0" not in ids(two)
    first = two["items"][0]
    assert "Page t3p0" in first["reason"] or "Page h0" in first["reason"], first
    assert "sessions" in first["sources"]
    assert why["request_id"] == two["request_id"]


@pytest.mark.parametrize("rung", RUNGS)
def test_a_session_is_answered_on_every_rung(sessions: Learnt, rung: str) -> None:
    recommender = Recommender(Bundle.load(sessions.bundle), sessions.system)
    catalogue, day = recommender.catalogue, END.timestamp() / 86_400
    keys = [int(catalogue.keys[catalogue.item_ids.tolist().index(name)]) for name in (b"t5p1", b"h1")]
    state = UserState("\x1fs").with_positive(keys[0], day - 0.001).with_positive(keys[1], day)
    ladder = Ladder(recommender, clock=Clock())
    RUNGS[rung](ladder)
    answer = ladder.answer(Request("\x1fs", 5, day), state)
    assert (answer.degraded or {"rung": "full"})["rung"] == rung
    assert len(answer.items) == 5
    if rung in ("full", "light", "linear"):  # the others are the same for everybody, and pages come again
        assert not {"t5p1", "h1"} & {item.item_id for item in answer.items}
    assert all(item.reason for item in answer.items)
    assert all(np.isfinite(item.score) for item in answer.items)


def test_it_is_judged_by_what_comes_next_beside_popularity_and_the_last_item(sessions: Learnt) -> None:
    runs = sorted((sessions.home / "steps" / "evaluate").glob("*/out/metrics.json"))
    metrics = json.loads(runs[-1].read_text())
    judged = metrics["protocols"][metrics["deciding"]]
    found = {
        name: {metric: values[metric]["value"] for metric in ("mrr@20", "recall@20")} for name, values in judged["recommenders"].items()
    }
    assert metrics["measures"] == ["mrr@20", "recall@20"]
    assert judged["targets"] == judged["users"] > 100  # one question a session, one item chosen next
    for metric in metrics["measures"]:
        for rival in ("popularity", "had with the last item"):
            ahead = judged["against"][rival][metric]
            assert ahead["value"] > 2 * ahead["error"], (metric, rival, found)
    assert found["candidate"]["recall@20"] > 0.9  # of 98 pages; the topic has eight, and there are two that all have


def rated(users: int = 80, items: int = 160, groups: int = 4, weeks: int = 8, seed: int = 0) -> Rows:
    """Everybody rates four films a week, none twice: three of their own group with 4 or 5 stars, one of another with 1 to 3."""
    random = np.random.default_rng(seed)
    rows: Rows = {"events": [], "items": [{"item_id": f"f{n}", "title": f"Film {n}"} for n in range(items)]}
    for user in range(users):
        films = random.permutation(items)
        mine, other = films[films % groups == user % groups], films[films % groups != user % groups]
        for nth, film in enumerate([film for week in range(weeks) for film in (*mine[week * 3 : week * 3 + 3], other[week])]):
            week, own = nth // 4, nth % 4 < 3
            moment = END - timedelta(days=7 * (weeks - week) - 0.2 * (nth % 4) - float(random.random()) * 5)
            stars = float(random.integers(4, 6) if own else random.integers(1, 4))
            row = {"event_id": f"{user}-{nth}", "event_type": "rating", "user_id": f"u{user}", "item_id": f"f{film}", "value": stars}
            rows["events"].append({**row, "timestamp": moment})
    return rows


async def test_a_log_of_clicks(tmp_path: Path) -> None:
    made = learnt(plain(types=("click",)), tmp_path, "value", "price")
    assert made.system.learning.positives == ("click",)
    async with made.door(tmp_path / "served") as client:
        known = await listed(client, user_id="u0", k=5)
    catalogue = Bundle.load(made.bundle).catalogue
    state = made.users[made.users.index("u0")]
    favourites = {catalogue.item_id(row) for row in catalogue.rows_of_keys(state.keys).tolist()}
    assert known["degraded"] is None
    assert favourites == set(ids(known))  # the five that u0 clicks all the time


async def test_a_log_of_ratings(tmp_path: Path) -> None:
    """What is rated well is liked, what is rated badly is not; the stars weigh."""
    made = learnt(rated(), tmp_path, "session_id", "price")
    rating = made.system.events["rating"]
    assert isinstance(rating, Positive)
    assert (rating.value, rating.at_least) == ("stars", 4)
    assert "not_seen" in [rule.kind for rule in made.system.rules]
    async with made.door(tmp_path / "served") as client:
        answers = {user: ids(await listed(client, user_id=f"u{user}", k=10)) for user in range(12)}
    own = [np.mean([int(film[1:]) % 4 == user % 4 for film in films]) for user, films in answers.items()]
    assert np.mean(own) > 0.7  # a quarter by chance


async def test_a_shop_with_one_level_of_categories(tmp_path: Path) -> None:
    """Its newcomers' lists are as good as popularity's, or the gate would have refused it."""
    rows = plain()
    rows["items"] = [item | {"category": item["category"].partition(" > ")[0]} for item in rows["items"]]
    made = learnt(rows, tmp_path)
    assert not any(getattr(rule, "per", "") == "category" for rule in made.system.rules)
    async with made.door(tmp_path / "served") as client:
        answer = await listed(client, user_id="u1", k=5)
        reply = await client.post("/v1/popular", json={"only": {"category": ["dept 0"]}, "k": 5})
    assert answer["degraded"] is None
    assert len(ids(reply.json())) == 5
    assert all(int(item[1:]) % 2 == 0 for item in ids(reply.json()))
