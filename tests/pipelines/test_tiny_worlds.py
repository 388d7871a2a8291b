"""Tiny random worlds, each odd in one way, gone through every step: a bundle that answers with finite numbers, or one clear sentence before
anything is learnt."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from components.data.ingest import ingest
from components.data.validate import validate
from components.evaluation.evaluate import evaluate
from components.evaluation.gate import decide
from components.features.build import build
from components.features.moments import moment
from components.features.usable import NotEnough, refuse_too_little, refuse_without_positives
from pipelines.new import new
from serving.bundle.bundle import Bundle
from serving.query import Request
from serving.recommender import Recommender
from serving.resilience.ladder import Ladder
from serving.state.user_state import StateTable, UserState
from serving.system import System, load_system
from tests.serving.resilience.test_breaker import Clock
from tests.world.loop import learn
from tests.world.news import news
from tests.world.plain import END, Rows, plain, write

CUT = END - timedelta(days=7)


def small(**changes: int) -> Rows:
    return plain(**{"users": 12, "items": 15, "weeks": 5, **changes})


def no_debut() -> Rows:
    """Every item was first taken in the first week, so a month brings no new one."""
    rows = small(weeks=7)
    first = min(event["timestamp"] for event in rows["events"]) + timedelta(days=7)
    known = {event["item_id"] for event in rows["events"] if event["timestamp"] < first}
    return rows | {"events": [event for event in rows["events"] if event["item_id"] in known]}


def one_item() -> Rows:
    rows = small()
    return rows | {"items": rows["items"][:1], "events": [event | {"item_id": "i0"} for event in rows["events"]]}


def no_repeat() -> Rows:
    rows, seen = small(items=40), set[tuple[str, str]]()
    order = np.random.default_rng(1)
    events = [event | {"item_id": f"i{order.integers(40)}"} for event in rows["events"]]
    kept = [event for event in events if (pair := (event["user_id"], event["item_id"])) not in seen and not seen.add(pair)]  # type: ignore[func-returns-value]
    return rows | {"events": kept}


def all_repeat() -> Rows:
    """Everybody takes one and the same thing of their own."""
    rows = small()
    return rows | {"events": [event | {"item_id": f"i{event['user_id'][1:]}"} for event in rows["events"]]}


def one_category() -> Rows:
    rows = small()
    return rows | {"items": [item | {"category": "all", "brand": "one"} for item in rows["items"]]}


def constant_price() -> Rows:
    rows = small()
    return rows | {
        "items": [item | {"price": 2.0} for item in rows["items"]],
        "events": [event | {"price": 2.0} for event in rows["events"]],
    }


def empty_week() -> Rows:
    rows = small()
    begin, end = END - timedelta(days=21), END - timedelta(days=14)
    return rows | {"events": [event for event in rows["events"] if not begin <= event["timestamp"] < end]}


def bare() -> Rows:
    """Nothing but who took what on which day: of items their ids, of users nothing, and every event of a day at its midnight."""
    rows = small()
    midnights = [event | {"timestamp": event["timestamp"].replace(hour=0, minute=0, second=0, microsecond=0)} for event in rows["events"]]
    told = ("event_id", "event_type", "user_id", "item_id", "timestamp")
    return {
        "items": [{"item_id": item["item_id"]} for item in rows["items"]],
        "events": [{n: event[n] for n in told} for event in midnights],
    }


def sessions_of_two() -> Rows:
    rows = news(days=24, a_day=4)
    begun: dict[str, int] = {}
    kept = []
    for event in rows["events"]:
        begun[event["session_id"]] = begun.get(event["session_id"], 0) + 1
        if begun[event["session_id"]] <= 2:
            kept.append(event | {"user_id": event["session_id"]})
    return rows | {"events": kept}


def sessions_of_one() -> Rows:
    return {
        "items": news(days=1)["items"],
        "events": [{**e, "user_id": e["event_id"], "session_id": e["event_id"]} for e in news(days=24, a_day=4)["events"]],
    }


WORLDS: dict[str, Callable[[], Rows]] = {
    "no debut for a month": no_debut, "one item": one_item, "no repeat": no_repeat, "all repeat": all_repeat,
    "one category": one_category, "constant price": constant_price, "an empty week": empty_week, "sessions of two": sessions_of_two,
    "bare": bare,
}  # fmt: skip
REFUSED: dict[str, tuple[Callable[[], Rows], str]] = {
    "one user": (lambda: small(users=1), "one user cannot be judged"),
    "sessions of one": (sessions_of_one, "no session before 2025-02-24 has two different click, one after the other"),
}


def known(rows: Rows, folder: Path) -> System:
    """The tables accepted, and held to be enough, as the features step does before it begins."""
    data = write({name: held for name, held in rows.items() if held}, folder / "data")
    system = load_system(str(new("mine", data, folder)))
    ingest(system, folder / "ingest", data)
    validate(system, folder / "ingest", folder / "validate")
    refuse_without_positives(system, folder / "validate")
    until = moment(str(folder / "mine.py"), folder / "validate", "")
    refuse_too_little(system, folder / "validate", until)
    return system


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learnt_from_is_refused_in_a_sentence_before_anything_is_learnt(name: str, tmp_path: Path) -> None:
    make, sentence = REFUSED[name]
    with pytest.raises(NotEnough, match=sentence):
        known(make(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_any_other_becomes_a_bundle_that_answers_in_finite_numbers(name: str, tmp_path: Path) -> None:
    system = known(WORLDS[name](), tmp_path)
    build(system, tmp_path / "validate", tmp_path / "features", CUT, 2)
    bundle = learn(system, tmp_path)
    evaluate(system, bundle, tmp_path / "features", tmp_path / "evaluate")
    decide(system, tmp_path / "evaluate", tmp_path / "gate")  # passed or not: it has to come to a verdict
    states = StateTable.load(tmp_path / "features" / "cuts" / f"{CUT:%Y-%m-%d}" / "users")
    ladder = Ladder(Recommender(Bundle.load(bundle), replace(system, rules=())), clock=Clock())
    day = CUT.timestamp() / 86_400
    for state in [states[user] for user in range(min(len(states), 5))] + [UserState("nobody")]:
        answer = ladder.answer(Request(state.user_id, 5, day), state)
        assert answer.items
        assert all(math.isfinite(item.score) for item in answer.items)
        assert (answer.degraded or {"reason": ""})["reason"] in ("", "nothing better is known of this user")
