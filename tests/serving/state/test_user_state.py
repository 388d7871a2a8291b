"""A state says again the bytes it was read from, and a changed one says its own; a table knows whom it holds."""

import random
from dataclasses import replace
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.event_meanings import type_code
from serving.state.user_state import AGAIN, HISTORY_LENGTH, LESS, NEVER, StateTable, UserState
from tests.serving.tiny_bundle import DAY, states

STATES = states()


def test_a_state_packs_to_the_bytes_it_was_read_from() -> None:
    packed = STATES[3].pack()
    assert UserState.unpack(packed).pack() is packed


@pytest.mark.parametrize("change", ["event", "purchase", "id"])
def test_a_changed_state_never_packs_to_the_old_bytes(change: str) -> None:
    state = UserState.unpack(STATES[3].pack())
    changed = {
        "event": lambda: state.with_session_event(5, "click", DAY),
        "purchase": lambda: state.with_positive(5, DAY),
        "id": lambda: replace(state, user_id=""),
    }[change]()
    assert changed.pack() != state.pack()
    again = UserState.unpack(changed.pack())
    assert (again.user_id, again.updated_day) == (changed.user_id, changed.updated_day)
    assert np.array_equal(again.session_keys, changed.session_keys)


def test_a_table_finds_its_users_and_nobody_else() -> None:
    names = ["a", "bb", "ccc", "é"]
    none = {"keys": "u8", "first_day": "f8", "last_day": "f8", "counts": "f4"}
    table = StateTable(
        user_ids=np.sort(np.array([name.encode() for name in names])), ends=np.zeros(4, np.int64),
        **{name: np.empty(0, dtype) for name, dtype in none.items()},
        decayed=np.empty((0, 4), np.float32), features=np.empty((4, 0), np.float32), place=np.full(4, b""), region=np.full(4, b""),
        consent=np.full(4, b"full"), created_day=np.zeros(4), feature_names=(), cut_day=DAY,
    )  # fmt: skip
    assert [table[table.index(name)].user_id for name in names] == names
    assert [table.index(name) for name in ("", "b", "bbb", "cccc", "a" * 256, "é" * 2, "z")] == [-1] * 7


def slowly(state: UserState, events: list[tuple[int, float]]) -> UserState:
    """The obvious reference: one event after the other."""
    for key, day in events:
        state = state.with_positive(key, day)
    return state


POSITIVES = st.lists(st.tuples(st.integers(1, 9), st.floats(DAY - 50, DAY + 50)), max_size=30)


@settings(max_examples=100, deadline=None)
@given(POSITIVES, st.integers(0, 30))
def test_many_positives_at_once_are_what_each_makes_after_the_other(events: list[tuple[int, float]], cut: int) -> None:
    once, parts = slowly(UserState("u"), events), UserState("u")
    for part in (events[:cut], events[cut:]):
        parts = parts.with_positives(np.array([key for key, _ in part], np.uint64), np.array([day for _, day in part]))
    assert parts.keys.tolist() == once.keys.tolist()
    assert parts.counts.tolist() == once.counts.tolist()
    assert (parts.last_day.tolist(), parts.first_day.tolist()) == (once.last_day.tolist(), once.first_day.tolist())
    assert np.allclose(parts.decayed, once.decayed, rtol=1e-4)
    assert not events or parts.updated_day == once.updated_day


def test_a_history_holds_the_heaviest_items_and_counts_end_at_their_bound() -> None:
    keys = np.arange(1, 40_001, dtype=np.uint64)
    state = UserState("u").with_positives(keys, np.full(len(keys), DAY - 100))
    assert len(state.keys) == HISTORY_LENGTH
    state = state.with_positives(np.array([50_000], np.uint64), np.array([DAY]))
    assert len(state.keys) == HISTORY_LENGTH
    assert 50_000 in state.keys.tolist()  # the latest weighs most
    often = UserState("u").with_positives(np.ones(40_000, np.uint64), np.full(40_000, DAY))
    assert often.with_positives(np.ones(1, np.uint64), np.array([DAY])).counts.tolist() == [1000]
    assert often.decayed.max() <= 1000


def test_forty_thousand_events_of_one_user_are_folded_in_a_time_that_grows_with_a_batch_and_not_with_what_was_before() -> None:
    state, took = UserState("u"), []
    for batch in range(40):
        keys = np.arange(1000 * batch, 1000 * batch + 1000, dtype=np.uint64)
        began = process_time()
        state = state.with_positives(keys, np.full(1000, DAY + batch))
        took.append(process_time() - began)
    assert sum(took[20:]) < 4 * sum(took[5:15]) + 0.2  # the history is full by then: no batch is dearer than one that fills it
    assert sum(took) < 4  # 1.8 s a batch when every event was inserted by itself


SAYINGS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([AGAIN, NEVER, LESS]), st.integers(0, 5)), max_size=8, unique_by=lambda one: one[::2]
)


@given(SAYINGS, st.randoms())
def test_what_was_said_last_of_an_item_holds_in_whatever_order_it_comes(events: list[tuple[int, int, int]], order: random.Random) -> None:
    def after(some: list[tuple[int, int, int]]) -> tuple[set[int], set[int]]:
        state = UserState("u")
        for key, said, day in some:
            state = state.with_said(np.array([key], np.uint64), np.array([said], np.uint8), np.array([DAY + day]))
        again = UserState.unpack(state.pack())
        return set(again.hidden.tolist()), set(again.disliked.tolist())

    latest = {key: said for key, said, _ in sorted(events, key=lambda one: one[2])}
    shuffled = events.copy()
    order.shuffle(shuffled)
    expected = tuple({key for key, said in latest.items() if said == what} for what in (NEVER, LESS))
    assert after(events) == after(shuffled) == expected


def test_clicks_push_no_hidden_item_out_of_memory() -> None:
    state = UserState("u").with_said(np.array([7], np.uint64), np.array([NEVER], np.uint8), np.array([DAY]))
    clicks = np.full(500, type_code("click"), np.uint32)
    state = state.with_session_events(np.arange(500, dtype=np.uint64), clicks, DAY + np.arange(500.0))
    assert state.hidden.tolist() == [7]
    assert state.session_keys.tolist() == list(range(436, 500))


@pytest.mark.parametrize(("had", "lowered"), [(DAY - 1, [7]), (DAY + 1, [])])
def test_an_item_that_was_had_since_is_disliked_no_more(had: float, lowered: list[int]) -> None:
    state = UserState("u").with_said(np.array([7, 9], np.uint64), np.array([LESS, NEVER], np.uint8), np.array([DAY, DAY]))
    assert state.with_positive(7, had).with_positive(3, DAY + 5).disliked.tolist() == lowered


def test_a_heavier_event_counts_more_and_is_one_event_all_the_same() -> None:
    light, heavy = (UserState("u").with_positive(5, DAY, weight) for weight in (0.5, 2.0))
    assert (light.counts.tolist(), heavy.counts.tolist()) == ([1], [1])
    assert (light.decayed.tolist(), heavy.decayed.tolist()) == ([[0.5] * 4], [[2.0] * 4])
    both = UserState("u").with_positives(np.array([5, 5], np.uint64), np.array([DAY, DAY]), np.array([0.5, 2.0], np.float32))
    assert both.decayed.tolist() == [[2.5] * 4]
