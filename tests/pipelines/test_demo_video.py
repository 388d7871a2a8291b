"""The made platform's demo: what it prints is what was measured, and the whole way works from tables to a running server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from components.data.video import words
from components.data.video.live import Size
from components.data.video_world import World, items_table, moment, write
from components.release.releases import ReleasedBundle, released
from pipelines.demo import ask, serving
from pipelines.demo_video import Visited, compared, exactly, lead, lived
from pipelines.loop import run_loop
from serving.state.user_state import StateTable


def visits(watch: float, users: int = 50) -> Visited:
    """Two visits of each user; the second is twice as long."""
    user = np.repeat(np.arange(users, dtype=np.int32), 2)
    seconds = np.tile(np.float32([watch, 2 * watch]), users)
    return Visited(user, seconds, np.ones_like(seconds), np.full_like(seconds, 8), seconds / 60)


def test_a_lead_is_the_ratio_of_what_was_watched() -> None:
    low, middle, high = lead(visits(130), visits(100))
    assert low == middle == high == pytest.approx(0.3)  # every user has the same: no doubt about it


def test_a_lead_of_few_users_is_uncertain() -> None:
    """Half of the users watch 20 s instead of 10, the others as before: +50 %, more or less."""
    rival = visits(10)
    half = replace(rival, watch_seconds=np.where(rival.user < 25, 2, 1) * rival.watch_seconds)
    low, middle, high = lead(half, rival)
    assert middle == pytest.approx(0.5)
    assert 0.3 < low < 0.45
    assert 0.55 < high < 0.7


def test_the_table_holds_watch_time_lead_share_and_clicks() -> None:
    measured = {"video": visits(60), "what trends": visits(40), "oracle": visits(120)}
    console = Console(width=160, record=True, file=StringIO())
    console.print(compared(measured, "a day"))
    text = console.export_text()
    for part in ("1.5 min", "+50% (+50% to +50%)", "50%", "0.125", "100 visits of 50 users"):
        assert part in text


@dataclass(frozen=True)
class Platform:
    """A small platform, what was learnt of it, and where that lies."""

    world: World
    found: ReleasedBundle
    home: Path

    @contextmanager
    def served(self, folder: Path) -> Iterator[str]:
        """The address of a server of it, whose clock starts where the history ends."""
        cut = datetime.fromtimestamp(StateTable.load(self.found.users).cut_day * 86_400, UTC)
        with serving("video", self.found.bundle, self.found.users, folder, cut) as address:
            yield address

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """Rows of the world's library, of an answer that is whole, keeps the caps and came from the full rung."""
        rows = np.array([int(item["item_id"][1:]) for item in answer["items"]])
        library = self.world.library
        assert answer["degraded"] is None
        assert len(set(rows.tolist())) == len(rows) == 20
        assert library.showable[rows[rows < len(library)]].all()
        assert np.bincount(library.channel[rows[rows < len(library)]]).max() <= 2
        return rows


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    folder = tmp_path_factory.mktemp("platform")
    world = write(folder / "tables", Size(users=600, channels=80, videos=1_500, days=21, ahead_days=2), seed=1)
    run_loop("video", folder / "tables", "", True, 0, folder / "home", refit=True)
    return Platform(world, released("video", folder / "home"), folder / "home")


def likes(address: str, user: str, **more: Any) -> Any:
    """A list of twenty."""
    return ask(address, "recommendations", {"user_id": user, "k": 20, **more})


def did(address: str, user: str, at: datetime, *events: tuple[str, str]) -> None:
    """These happen, a second after each other."""
    told = [
        {
            "event_id": f"{user}-{at:%s}-{n}", "event_type": kind, "user_id": user, "item_id": item,
            "timestamp": (at + timedelta(seconds=n)).isoformat(), **({"value": 300.0} if kind == "watch" else {}),
        }
        for n, (kind, item) in enumerate(events)
    ]  # fmt: skip
    assert ask(address, "events", {"events": told})["accepted"] == len(told)


@pytest.mark.slow
def test_a_small_platform_is_learnt_and_lives_under_a_server(platform: Platform) -> None:
    """Tables, gate, bundle, server, events, uploads: better than what trends and chance by the truth, worse than the oracle."""
    told = exactly(platform.world, platform.found)
    watched = {name: float(one.watch_seconds.mean()) for name, one in told.items()}
    assert watched["random"] < watched["what trends"] < watched["video"] < watched["oracle"]
    live = lived(platform.world, platform.found, platform.home, steps=1)
    assert live["video"].watch_seconds.sum() > live["random"].watch_seconds.sum()
    assert len({one.user.tobytes() for one in live.values()}) == 1  # the same visitors


@pytest.mark.slow
def test_a_new_user_is_answered_by_the_region_and_learnt_from_at_once(platform: Platform, tmp_path: Path) -> None:
    library, start = platform.world.library, moment(platform.world.day)
    with platform.served(tmp_path) as address:
        lists = {region: platform.rows(likes(address, "somebody", context={"region": region})) for region in ("us", "br", "atlantis")}
        own = {region: (library.language[lists[region]] == words.LANGUAGES.index(of)).mean() for region, of in (("us", "en"), ("br", "pt"))}
        assert min(own.values()) > 0.5, own  # what is watched there, whose language nobody was told
        channel = int(np.bincount(library.channel[: platform.world.there]).argmax())
        seen = np.flatnonzero((library.channel == channel) & library.showable)[:4]
        did(address, "somebody", start, *(("watch", f"v{row:08d}") for row in seen))
        after = platform.rows(likes(address, "somebody", context={"region": "us"}))
        assert set(after.tolist()) != set(lists["us"].tolist())
        assert not set(after.tolist()) & set(seen.tolist())  # watched


@pytest.mark.slow
def test_a_new_video_reaches_who_follows_its_channel_and_a_new_channel_is_shown(platform: Platform, tmp_path: Path) -> None:
    world, start = platform.world, moment(platform.world.day)
    users = [world.crowd.user_id(user) for user in range(60)]
    row = int(np.flatnonzero(world.library.showable[: world.there])[-1])
    was = items_table(world.library, row, row + 1).to_pylist()[0]
    fresh = {"category": was["category"], "title": was["title"], "created_at": start.isoformat()}
    with platform.served(tmp_path) as address:
        posted = [{"item_id": f"n{n}", "brand": was["brand"], **fresh} for n in range(2)]
        posted += [{"item_id": f"c{n}", "brand": "a channel of today", **fresh} for n in range(3)]
        assert ask(address, "items", {"items": posted})["refused"] == []
        did(address, users[0], start, ("subscribe", was["item_id"]))
        answer = likes(address, users[0])
        said = {item["item_id"]: item for item in answer["items"]}
        assert {"n0", "n1"} & set(said)  # at most two of a channel
        assert any("followed" in item["sources"] for item in said.values())
        shown = [item["item_id"] for user in users for item in likes(address, user)["items"]]
        assert {"c0", "c1", "c2"} & set(shown)  # three of a page are of within a day


@pytest.mark.slow
def test_a_user_who_withdrew_consent_is_a_stranger_of_whom_nothing_is_kept(platform: Platform, tmp_path: Path) -> None:
    crowd, start = platform.world.crowd, moment(platform.world.day)
    user = crowd.user_id(int(np.flatnonzero(crowd.consent == "minimal")[0]))
    states = StateTable.load(platform.found.users)
    state = states[states.index(user)]
    assert not len(state.keys) + len(state.said_keys)  # whatever they did before, the gate let none of it through
    with platform.served(tmp_path) as address:
        context = {"region": "de"}
        before = platform.rows(likes(address, user, context=context))
        assert before.tolist() == platform.rows(likes(address, "never seen before", context=context)).tolist()
        did(address, user, start, *(("watch", f"v{row:08d}") for row in before[:5]))
        assert platform.rows(likes(address, user, context=context)).tolist() == before.tolist()
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and user.encode() in file.read_bytes()]
