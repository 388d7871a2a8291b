"""A user's state is what its events make of it, in whatever order they come; what is stored is read back or refused."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.names import TAUS_DAYS
from serving.event_meanings import type_code
from serving.state.user_state import AGAIN, FOLLOWED, LESS, NEVER, SESSION_LENGTH, BadState, StateTable, UserState, schema_key
from tests.serving import tiny_bundle

EVENTS = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 400).map(lambda quarter: quarter / 4)), min_size=1, max_size=12)


def folded(events: list[tuple[int, float]]) -> UserState:
    state = UserState("u")
    for key, day in events:
        state = state.with_positive(key, day)
    return state


def slow_decayed(days: list[float], at: float) -> list[float]:
    return [sum(np.exp(-(at - day) / tau) for day in days) for tau in TAUS_DAYS]


@settings(deadline=None, max_examples=60)
@given(EVENTS)
def test_a_history_is_its_events_in_any_order(events: list[tuple[int, float]]) -> None:
    state = folded(events)
    days = {key: sorted(day for had, day in events if had == key) for key in sorted({key for key, _ in events})}
    assert state.keys.tolist() == list(days)
    assert state.counts.tolist() == [len(each) for each in days.values()]
    assert state.first_day.tolist() == [each[0] for each in days.values()]
    assert state.last_day.tolist() == [each[-1] for each in days.values()]
    assert state.decayed == pytest.approx(np.array([slow_decayed(each, each[-1]) for each in days.values()]), rel=1e-4)
    assert state.updated_day == max(day for _, day in events)


def test_a_late_event_moves_the_first_day_back_and_counts_by_its_age() -> None:
    state = folded([(7, 90.0), (7, 30.0), (7, 60.0)])
    assert (state.first_day.item(), state.last_day.item(), state.counts.item()) == (30.0, 90.0, 3)
    assert state.decayed[0] == pytest.approx([1 + np.exp(-60 / tau) + np.exp(-30 / tau) for tau in TAUS_DAYS])


def test_the_latest_event_is_remembered_whatever_it_was() -> None:
    state = UserState("u").with_session_event(1, "click", 50.0)
    assert state.updated_day == 50.0
    assert state.with_session_event(1, "click", 40.0).updated_day == 50.0
    assert state.with_session_event(1, "click", 60.0).updated_day == 60.0
    assert state.with_positive(1, 40.0).updated_day == 50.0
    assert state.with_positive(1, 60.0).updated_day == 60.0


def test_a_session_is_the_latest_events_oldest_first_and_of_one_moment_as_they_came() -> None:
    state = UserState("u")
    for key, day in [(1, 5.0), (2, 3.0), (3, 5.0), (4, 4.0)]:
        state = state.with_session_event(key, "like", day)
    assert state.session_keys.tolist() == [2, 4, 1, 3]
    assert state.session_days.tolist() == [3.0, 4.0, 5.0, 5.0]
    assert state.session_types.tolist() == [type_code("like")] * 4
    for key in range(100, 100 + SESSION_LENGTH):
        state = state.with_session_event(key, "click", 6.0 + key)
    assert state.session_keys.tolist() == [*range(100, 100 + SESSION_LENGTH)]
    assert len(state.session_days) == len(state.session_types) == SESSION_LENGTH == 64
    assert state.with_session_event(9, "click", 1.0).session_keys.tolist() == state.session_keys.tolist()  # too old to be kept


def test_nobody_is_unknown_and_one_event_of_either_kind_makes_somebody() -> None:
    assert UserState("u").is_unknown
    assert not UserState("u").with_positive(1, 1.0).is_unknown
    assert not UserState("u").with_session_event(1, "click", 1.0).is_unknown


def test_two_states_are_the_same_where_their_bytes_are() -> None:
    state = folded([(1, 5.0)])
    assert state.same_as(state)
    assert state.same_as(UserState.unpack(state.pack()))
    assert not state.same_as(folded([(1, 6.0)]))


def whole() -> UserState:
    """One with something in every array."""
    state = folded([(5, 40.0), (9, 41.0)]).with_session_event(3, "purchase", 42.0).with_session_event(4, "click", 43.0)
    state = state.with_said(np.array([5, 9], np.uint64), np.array([NEVER, LESS], np.uint8), np.array([44.0, 45.0]))
    given = {"features": np.array([1.5, np.nan], np.float32), "schema_key": 77, "place": "north", "region": "é", "consent": "aggregated"}
    return replace(state, created_day=12.0, **given)


def test_what_is_packed_is_read_back() -> None:
    state = whole()
    packed = state.pack()
    assert state.pack() is packed  # made once
    again = UserState.unpack(packed)
    for name, value in vars(state).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(again, name), value)
            assert getattr(again, name).dtype == value.dtype
        elif name != "_packed":
            assert getattr(again, name) == value


def test_bytes_that_follow_a_state_are_not_said_again() -> None:
    packed = whole().pack()
    assert UserState.unpack(packed + b"more").pack() == packed


@pytest.mark.parametrize(
    ("at", "put"),
    [(0, b"NOPE"), (4, struct.pack("<H", 2)), (4, struct.pack("<H", 0xFFFF)), (6, struct.pack("<H", len(TAUS_DAYS) + 1))],
    ids=["other magic", "earlier version", "other version", "other decays"],
)
def test_bytes_of_another_form_are_refused(at: int, put: bytes) -> None:
    packed = whole().pack()
    with pytest.raises(BadState, match=r"materialize again"):
        UserState.unpack(packed[:at] + put + packed[at + len(put) :])


def test_a_state_that_is_cut_anywhere_is_refused() -> None:
    packed = whole().pack()
    for length in range(len(packed)):
        with pytest.raises(BadState, match="materialize again"):
            UserState.unpack(packed[:length])


def test_what_cannot_be_said_of_an_item_is_refused() -> None:
    packed = whole().pack()  # ends with what was said of two items
    assert UserState.unpack(packed[:-1] + bytes([AGAIN])).said.tolist() == [NEVER, AGAIN]
    for what in (FOLLOWED + 1, 255):
        for place in (-1, -2):
            damaged = bytearray(packed)
            damaged[place] = what
            with pytest.raises(BadState, match="what cannot be said"):
                UserState.unpack(bytes(damaged))


def table() -> StateTable:
    """Of a: items 3 and 5; of b: none; of c: item 4."""
    return StateTable(
        user_ids=np.array([b"a", b"b", b"c"]), ends=np.array([2, 2, 3]), keys=np.array([3, 5, 4], np.uint64),
        first_day=np.array([1.0, 2.0, 3.0]), last_day=np.array([9.0, 8.0, 7.0]), counts=np.array([4, 5, 6], np.float32),
        decayed=np.arange(12, dtype=np.float32).reshape(3, 4), features=np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        place=np.array([b"n", b"s", b"n"]), region=np.array([b"e", b"", b"w"]), consent=np.array([b"full", b"full", b"minimal"]),
        created_day=np.array([0.0, 0.5, 0.25]), feature_names=("one", "two"), cut_day=10.0,
    )  # fmt: skip


def test_a_table_gives_each_user_their_own_rows() -> None:
    found = [table()[index] for index in range(3)]
    assert [state.user_id for state in found] == ["a", "b", "c"]
    assert [state.keys.tolist() for state in found] == [[3, 5], [], [4]]
    assert [state.first_day.tolist() for state in found] == [[1, 2], [], [3]]
    assert [state.counts.tolist() for state in found] == [[4, 5], [], [6]]
    assert [state.decayed.tolist() for state in found] == [[[0, 1, 2, 3], [4, 5, 6, 7]], [], [[8, 9, 10, 11]]]
    assert [state.features.tolist() for state in found] == [[1, 2], [3, 4], [5, 6]]
    assert [(state.place, state.region, state.consent, state.created_day) for state in found] == [
        ("n", "e", "full", 0.0), ("s", "", "full", 0.5), ("n", "w", "minimal", 0.25),
    ]  # fmt: skip
    assert found[0].updated_day == 9.0
    assert np.isnan(found[1].updated_day)
    assert {state.schema_key for state in found} == {schema_key(("one", "two"))}


def test_features_made_under_another_list_of_names_have_another_key() -> None:
    assert schema_key(("one", "two")) != schema_key(("two", "one"))
    assert schema_key(("one", "two")) != schema_key(("onetwo",))


def test_the_tiny_worlds_users_are_found_by_name() -> None:
    states = tiny_bundle.states()
    assert [states.index(f"u{number:02}") for number in range(len(states))] == [*range(len(states))]
    assert states.index("nobody of that name") == -1
