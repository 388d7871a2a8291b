"""Events are the system's own: its types are taken, mean what its table says in the next list, and what means nothing is said."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from feature_repo.schema import Worth
from serving.bundle.catalogue import item_key
from serving.event_meanings import Again, Negative, Never, Positive, Shown, Signal, check_codes, type_code
from serving.query import Query, Request
from serving.ranking.dislikes import lowered
from serving.rules.slate import Ranked
from serving.state.fold import Fold
from serving.state.store import StateEvent
from serving.state.user_state import LESS, UserState
from serving.system import Learning
from tests.serving import tiny_bundle
from tests.serving.servers import in_process, tiny_options
from tests.serving.tiny_bundle import DAY

NOON = "2024-10-04T12:00:00Z"
TABLE = """events={"order": Positive(value="pieces"), "view_item": Signal(0.6), "not_for_me": Negative(), "ban": Never(),
    "unban": Again(), "seen": Shown()}, learning=Learning(),"""

SLOW = "60_000, 60_000, 60_000, 60_000, 60_000"  # ms: what a busy machine answers is not looked at here


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server whose system names its own types and none of the schema's."""
    text = tiny_bundle.SYSTEM_FILE.read_text().replace("learning=Learning(),", TABLE)
    text = text.replace("total_ms=100, features_ms=10, retrieval_ms=30, models_ms=50, rules_ms=10", SLOW)
    system = tmp_path / "tiny_events.py"
    system.write_text("from serving.event_meanings import Again, Negative, Never, Positive, Shown, Signal\n" + text)
    parts = in_process(tiny_options(tmp_path, system=str(system)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door") as made:
        yield made
    for close in parts.closers:
        close()


async def told(client: httpx.AsyncClient, kind: str, item: str, user: str = "u01", **more: Any) -> dict[str, Any]:
    event = {"event_id": f"{user} {kind} {item}", "event_type": kind, "user_id": user, "item_id": item, "timestamp": NOON, **more}
    reply = await client.post("/v1/events", json={"events": [event]})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def listed(client: httpx.AsyncClient, user: str = "u01", k: int = 240) -> list[str]:
    reply = await client.post("/v1/recommendations", json={"user_id": user, "k": k})
    assert (reply.status_code, reply.json()["degraded"]) == (200, None)
    return [item["item_id"] for item in reply.json()["items"]]


async def test_own_types_are_taken_in_the_document_and_others_refused_by_name(client: httpx.AsyncClient) -> None:
    assert (await told(client, "view_item", "i100"))["accepted"] == 1
    refused = (await told(client, "view_itme", "i100"))["refused"]
    assert [(one["code"], one["field"]) for one in refused] == [("bad_value", "event_type")]
    assert "'view_itme'" in refused[0]["message"]
    assert "view_item" in refused[0]["message"]
    document = (await client.get("/openapi.json")).json()
    allowed = document["components"]["schemas"]["Event"]["properties"]["event_type"]["enum"]
    assert {"order", "view_item", "ban", "purchase"} <= set(allowed)
    assert "view_itme" not in allowed


async def test_a_hint_lifts_its_item_and_a_positive_is_history(client: httpx.AsyncClient) -> None:
    before = await listed(client)
    await told(client, "view_item", "i100")
    assert (await listed(client)).index("i100") < before.index("i100")
    await told(client, "order", "i150", value=3)
    reply = await client.post("/v1/recommendations", json={"user_id": "u01", "k": 240})
    reasons = {item["item_id"]: item["reason"] for item in reply.json()["items"]}
    assert reasons["i150"] == "You bought it today"
    assert reasons["i100"].startswith("You looked at it")


async def test_a_banned_item_is_gone_and_a_disliked_one_stands_lower_with_its_like_until_it_is_taken_back(
    client: httpx.AsyncClient,
) -> None:
    before = await listed(client)
    gone, low = before[0], before[1]
    await told(client, "ban", gone)
    await told(client, "not_for_me", low)
    after = await listed(client)
    assert gone not in after
    assert after.index(low) > before.index(low) + 20
    assert await listed(client, "u02") == await listed(client, "u02")  # nobody else's
    await told(client, "unban", gone, timestamp="2024-10-04T12:00:01Z")
    await told(client, "unban", low, timestamp="2024-10-04T12:00:01Z")
    assert await listed(client) == before


async def test_what_moves_no_list_is_counted_by_its_type(client: httpx.AsyncClient) -> None:
    before = await listed(client)
    assert (await told(client, "seen", "i100"))["unused"] == {"seen": 1}
    assert (await told(client, "click", "i100"))["unused"] == {"click": 1}  # the schema's, without a meaning here
    assert await listed(client) == before


async def test_of_a_user_who_consents_to_minimal_use_nothing_is_kept_anywhere(client: httpx.AsyncClient, tmp_path: Path) -> None:
    user = f"u{tiny_bundle.USERS - 1:02}"
    before = await listed(client, user)
    reply = await told(client, "order", "i150", user)
    assert (reply["accepted"], reply["not_kept"], reply["duplicates"]) == (1, 1, 0)
    assert await listed(client, user) == before
    with sqlite3.connect(tmp_path / "events" / "events.sqlite") as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (0,)
    db.close()
    kept = b"".join(file.read_bytes() for file in sorted((tmp_path / "events").rglob("*")) if file.is_file())
    assert user.encode() not in kept


def test_the_value_of_a_positive_weighs_it_within_bounds() -> None:
    stars, seconds = Positive(value="stars", at_least=4).worth, Positive(2.0, value="seconds", usual=99).worth
    assert (stars.of(3), stars.of(4), stars.of(float("nan"))) == (0, 1, 0)
    assert stars.of(5) == pytest.approx(np.log(6) / np.log(5))
    assert [seconds.of(value) for value in (99, 9, 0, 1e9, float("nan"))] == pytest.approx([2, 1, 0.2, 6, 2])
    assert Worth(usual=1.0).of(1e9) == 3
    assert Positive().worth.of(7) == 1


def test_what_was_graded_low_is_gone_or_lowered_as_the_table_says_and_what_has_no_grade_says_nothing() -> None:
    graded = [StateEvent(str(stars), "u", f"i{stars}", "rating", 1.0, value) for stars, value in enumerate((2.0, 3.9, 4.0, float("nan")))]
    of = {
        name: Fold(Learning(events={"rating": Positive(value="stars", at_least=4, below=below)})).of(UserState("u"), graded)
        for name, below in (("never", Never()), ("less", Negative()), ("nothing", None))
    }
    low = sorted(map(item_key, ("i0", "i1")))
    assert {name: (state.hidden.tolist(), state.disliked.tolist()) for name, state in of.items()} == {
        "never": (low, []),
        "less": ([], low),
        "nothing": ([], []),
    }
    assert all(state.keys.tolist() == [item_key("i2")] for state in of.values())


@pytest.mark.parametrize(
    "made",
    [
        lambda: Positive(value="stars", below=Never()),
        lambda: Positive(0),
        lambda: Positive(11),
        lambda: Signal(-1),
        lambda: Positive(usual=3),
        lambda: Positive(value="s", usual=-1),
    ],
)
def test_meanings_that_say_nothing_are_refused(made: Any) -> None:
    with pytest.raises(ValueError, match=r"weighs|usual|at_least"):
        made()


def test_without_a_table_a_hide_a_dislike_and_an_impression_mean_what_they_say() -> None:
    meanings = Learning(events={"order": Positive(), "hide": Negative()}).meanings
    assert meanings == {"order": Positive(), "hide": Negative(), "impression": Shown(), "unhide": Again(), "dislike": Negative()}
    assert Learning().meanings["hide"] == Never()


def test_types_that_cannot_be_told_apart_are_refused() -> None:
    assert type_code("t15385") == type_code("t210367")  # found by trying
    with pytest.raises(ValueError, match=r"'t15385' and 't210367' cannot be told apart"):
        check_codes(("click", "t15385", "t210367"))


def test_a_dislike_divides_the_odds_of_the_item_its_type_and_its_brand() -> None:
    catalogue = tiny_bundle.catalogue()
    disliked = 50
    state = UserState("u").with_said(np.array([item_key("i050")], np.uint64), np.array([LESS], np.uint8), np.array([DAY]))
    query = Query(Request("u", 10, DAY), state, catalogue, Learning())
    rows = np.arange(len(catalogue), dtype=np.int32)
    ranked = Ranked(rows, np.full(len(rows), 0.5, np.float32), np.zeros(len(rows), bool))
    found, moves = lowered(query, ranked)
    score = dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
    for row in rows.tolist():
        told = 1.0
        told *= 2.0**-5.0 if row == disliked else 1
        told *= 2.0**-1.2 if catalogue.category[row, 2] == catalogue.category[disliked, 2] else 1
        told *= 2.0**-0.3 if catalogue.brand[row] == catalogue.brand[disliked] else 1
        assert score[row] == pytest.approx(0.5 * told, rel=1e-5), row
    assert found.rows[-1] == disliked
    assert (np.diff(found.scores) <= 0).all()
    assert [move.rule for move in moves] in ([], ["dislike"])
    nobody = Query(Request("u", 10, DAY), UserState("u"), catalogue, Learning())
    assert lowered(nobody, ranked) == (ranked, ())
