"""What comes from whom one follows: a small catalogue of three channels, whose answer is worked out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.retrieval import followed as twin
from serving.bundle.catalogue import Catalogue, item_key
from serving.event_meanings import Again, Follow, Positive
from serving.query import Query, Request
from serving.retrieval.followed import Followed, followed
from serving.state.fold import Fold
from serving.state.store import StateEvent
from serving.state.user_state import UserState
from serving.system import Learning
from tests.components.retrieval.worlds import CUT_DAY, catalogue, cut

LEARNING = Learning(events={"watch": Positive(), "subscribe": Follow(), "unsubscribe": Again()})
DAYS_AGO = {"a1": 1.0, "a2": 5.0, "a3": 20.0, "b1": 2.0, "b2": np.nan, "c1": 0.5, "x1": 0.1}  # a3: too long ago; b2: undated; x1: of nobody
CHANNEL = {"a": 1, "b": 2, "c": 3, "x": 0}


def items() -> Catalogue:
    return catalogue(
        list(DAYS_AGO),
        brand=np.array([CHANNEL[name[0]] for name in DAYS_AGO], np.int32),
        brand_names=("unknown", "Ann", "Bob", "Cem"),
        created_day=CUT_DAY - np.array(list(DAYS_AGO.values())),
    )


def told(*events: tuple[str, str]) -> UserState:
    """A user who did these in this order, the last an hour ago."""
    made = [
        StateEvent(str(at), "u", item, kind, CUT_DAY - 1 + at / 24)
        for at, (kind, item) in enumerate(events)
    ]  # fmt: skip
    return Fold(LEARNING).of(UserState("u"), made)


@pytest.fixture
def source(tmp_path: Path) -> Followed:
    spec = followed(share=1, days=14)
    twin.fit(cut([("v", "a1", 99.0)], items()), spec, tmp_path)
    return Followed.load(tmp_path, spec, items())


def names(source: Followed, state: UserState, n: int = 9, at_day: float = CUT_DAY) -> list[str]:
    hits = source.retrieve(Query(Request("u", 5, at_day), state, source.catalogue, LEARNING), n)
    assert (np.diff(hits.scores) <= 0).all()
    return [source.catalogue.item_id(row) for row in hits.rows]


def test_the_newest_of_followed_channels_come_first(source: Followed) -> None:
    assert names(source, told(("subscribe", "a3"), ("subscribe", "b1"))) == ["a1", "b1", "a2"]
    assert names(source, told(("subscribe", "a3"), ("subscribe", "b1")), n=2) == ["a1", "b1"]
    assert names(source, told(("subscribe", "c1"))) == ["c1"]


def test_who_follows_nobody_is_brought_nothing(source: Followed) -> None:
    assert names(source, UserState("u")) == names(source, told(("watch", "a1"))) == names(source, told(("subscribe", "x1"))) == []


def test_what_was_watched_or_is_yet_to_come_is_left_out(source: Followed) -> None:
    assert names(source, told(("subscribe", "a3"), ("watch", "a2"))) == ["a1"]
    assert names(source, told(("subscribe", "a3")), at_day=CUT_DAY - 2) == ["a2"]


def test_a_channel_is_followed_until_that_is_taken_back(source: Followed) -> None:
    assert names(source, told(("subscribe", "a1"), ("unsubscribe", "a1"))) == []
    assert names(source, told(("unsubscribe", "a1"), ("subscribe", "a1"))) == ["a1", "a2"]


def test_a_video_posted_a_moment_ago_is_there(source: Followed) -> None:
    small = items()
    larger = catalogue(
        [*DAYS_AGO, "z9"],
        brand=np.append(small.brand, 1).astype(np.int32),
        brand_names=small.brand_names,
        created_day=np.append(small.created_day, CUT_DAY),
    )
    grown = source.with_new_items(larger, None)
    assert names(grown, told(("subscribe", "a3"))) == ["z9", "a1", "a2"]
    assert names(source, told(("subscribe", "a3"))) == ["a1", "a2"]


def test_its_sentence_names_the_channel_and_is_said_of_followed_ones_alone(source: Followed) -> None:
    query = Query(Request("u", 5, CUT_DAY), told(("subscribe", "a3")), source.catalogue, LEARNING)
    of = {name: source.reason(query, row) for row, name in enumerate(sorted(DAYS_AGO))}
    assert of["a1"] == "New from Ann, which you follow"
    assert of["b1"] == of["x1"] == ""


def test_a_follow_outlives_packing(source: Followed) -> None:
    state = UserState.unpack(told(("subscribe", "a3")).pack())
    assert state.followed.tolist() == [item_key("a3")]
    assert not len(state.hidden)
    assert not len(state.disliked)
    assert names(source, replace(state)) == ["a1", "a2"]
