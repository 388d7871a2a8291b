"""User states made all at once are those that fold one event after the other."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.read import arrow_schema
from components.features.states import build_states
from components.features.tables import open_tables
from feature_repo.schema import TABLES
from serving.bundle.catalogue import item_key
from serving.event_meanings import Follow, Never, Positive, Signal
from serving.state.fold import Fold
from serving.state.store import StateEvent
from serving.state.user_state import UserState
from serving.system import load_system

START = datetime(2024, 1, 1, tzinfo=UTC)
CUT_DAY = START.timestamp() / 86_400 + 60
USERS, ITEMS = ("ann", "bob", "zoë"), ("milk", "bread", "Öl", "soap")

purchases = st.lists(
    st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS), st.integers(0, 75 * 86_400), st.sampled_from((None, "north", "south"))),
    max_size=40,
)


def write(folder, events):
    rows = {
        "events": [
            {"event_id": str(n), "event_type": "purchase", "user_id": user, "item_id": item, "timestamp": START + timedelta(seconds=second),
             "session_id": f"{user}{second}", "context_store": place}
            for n, (user, item, second, place) in enumerate(events)
        ],
        "items": [{"item_id": item} for item in ITEMS],
        "users": [{"user_id": user, "consent": "full", "region": "r", "created_at": None} for user in USERS],
        "context": [],
    }  # fmt: skip
    for name, table in TABLES.items():
        pq.write_table(pa.Table.from_pylist(rows[name], schema=arrow_schema(table)), folder / f"{name}.parquet")


def built(folder, events):
    write(folder, events)
    with open_tables(folder, load_system("shop"), CUT_DAY, 7) as tables:
        return build_states(tables, CUT_DAY, np.zeros((len(USERS), 0), np.float32), ())


def folded(user, events):
    """The slow obvious way: every event before the cut, one after the other, in any order."""
    state = UserState(user)
    for who, item, second, _ in events:
        day = (START.timestamp() + second) / 86_400
        if who == user and day < CUT_DAY:
            state = state.with_positive(item_key(item), day)
    return state


@given(events=purchases)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_states_made_at_once_equal_folding_event_by_event(tmp_path_factory, events):
    table = built(tmp_path_factory.mktemp("states"), events)
    assert [bytes(user).decode() for user in table.user_ids] == sorted(USERS, key=str.encode)
    for user in USERS:
        mine, slow = table[table.index(user)], folded(user, events)
        np.testing.assert_array_equal(mine.keys, slow.keys)
        np.testing.assert_allclose(mine.first_day, slow.first_day, rtol=0, atol=1e-9)
        np.testing.assert_allclose(mine.last_day, slow.last_day, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(mine.counts, slow.counts)
        np.testing.assert_allclose(mine.decayed, slow.decayed, rtol=1e-5)
        assert UserState.unpack(mine.pack()).pack() == mine.pack()


def test_the_usual_place_is_the_most_frequent_so_far(tmp_path):
    events = [("ann", "milk", 0, "north"), ("ann", "milk", 5, "south"), ("ann", "soap", 9, "south"), ("ann", "soap", 62 * 86_400, "north")]
    events += [("ann", "bread", 63 * 86_400 + n, "north") for n in range(5)]  # after the cut
    table = built(tmp_path, events)
    assert table[table.index("ann")].place == "south"
    assert table[table.index("bob")].place == ""
    assert table[table.index("bob")].is_unknown


def test_a_user_who_came_at_the_cut_or_later_has_no_region_and_no_first_day_yet(tmp_path):
    write(tmp_path, [])
    users = pq.read_table(tmp_path / "users.parquet").to_pylist()
    for user, days in zip(users, (59, 60, 61), strict=True):
        user["created_at"] = START + timedelta(days=days)
    pq.write_table(pa.Table.from_pylist(users, schema=arrow_schema(TABLES["users"])), tmp_path / "users.parquet")
    with open_tables(tmp_path, load_system("shop"), CUT_DAY, 7) as tables:
        table = build_states(tables, CUT_DAY, np.zeros((len(USERS), 0), np.float32), ())
    assert [table[at].region for at in range(3)] == ["r", "", ""]
    assert table[0].created_day == pytest.approx(CUT_DAY - 1)
    assert np.isnan(table.created_day[1:]).all()


KINDS = ("purchase", "rating", "hide", "unhide", "dislike", "subscribe", "click")
TOLD = {
    "purchase": Positive(value="pieces"),
    "rating": Positive(value="stars", at_least=4, below=Never()),
    "subscribe": Follow(),
    "click": Signal(0.5),
}
anything = st.lists(
    st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS), st.integers(0, 75 * 86_400), st.sampled_from(KINDS), st.integers(0, 5)),
    max_size=40, unique_by=lambda event: event[2],
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything)
def test_hides_dislikes_follows_and_values_are_those_the_server_folds(tmp_path, events):
    system = replace(load_system("shop"), events=TOLD)
    write(tmp_path, [(user, item, second, None) for user, item, second, _, _ in events])
    told = pq.read_table(tmp_path / "events.parquet")
    for column, at, kind in (("event_type", 3, pa.string()), ("value", 4, pa.float64())):
        place = told.schema.get_field_index(column)
        told = told.set_column(place, told.schema.field(place), pa.array([event[at] for event in events], kind))
    pq.write_table(told, tmp_path / "events.parquet")
    with open_tables(tmp_path, system, CUT_DAY, 7) as tables:
        table = build_states(tables, CUT_DAY, np.zeros((len(USERS), 0), np.float32), ())
    for user in USERS:
        made = table[table.index(user)]
        days = [(START.timestamp() + second) / 86_400 for _, _, second, _, _ in events]
        mine = [
            StateEvent(str(n), user, item, kind, day, value)
            for n, ((who, item, _, kind, value), day) in enumerate(zip(events, days, strict=True))
            if who == user and day < CUT_DAY
        ]
        slow = Fold(system.learning).of(UserState(user), mine)
        assert (made.keys.tolist(), made.counts.tolist()) == (slow.keys.tolist(), slow.counts.tolist())
        np.testing.assert_allclose(made.decayed, slow.decayed, rtol=1e-4)
        assert (made.said_keys.tolist(), made.said.tolist()) == (slow.said_keys.tolist(), slow.said.tolist())
        assert (made.hidden.tolist(), made.disliked.tolist()) == (slow.hidden.tolist(), slow.disliked.tolist())
        assert made.followed.tolist() == slow.followed.tolist()
