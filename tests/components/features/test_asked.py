"""Sessions after a cut are asked once each, at a moment after which they went on to something else, with the state the server had then."""

import itertools
from dataclasses import replace

import duckdb
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.cut import HistoryMatrix, asked_folder
from components.features import asked
from components.features.tables import open_tables
from serving.bundle.catalogue import item_key
from serving.state.user_state import StateTable, UserState
from serving.system import load_system
from tests.components.features.test_states import CUT_DAY, ITEMS, START, write

DAYS = 7
SECOND = 1 / 86_400
clicks = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 9)), max_size=25)


def moments(events, begin, end):
    """The slow obvious way: user -> every (moment, items that may be said to come next) of it that may be asked about."""
    found = {}
    for user in {who for who, _, _ in events}:
        mine = sorted((at, item) for who, item, at in events if who == user)
        if mine[0][0] < begin:
            continue
        for (at, item), (after, following) in itertools.pairwise(mine):
            if after > at and following != item and after < end:
                found.setdefault(user, set()).add((at, following))
    return found


@settings(max_examples=60, deadline=None)
@given(clicks)
def test_each_is_asked_once_where_something_else_came_next(events):
    connection = duckdb.connect()
    connection.execute("CREATE TABLE told (user_id VARCHAR, item_id VARCHAR, moment BIGINT)")
    scaled = [(who, item, at * 86_400_000_000) for who, item, at in events]
    if scaled:
        connection.executemany("INSERT INTO told VALUES (?, ?, ?)", scaled)
    rows = connection.execute(asked.questions("told", 2.0, 5)).fetchall()
    expected = moments(scaled, 2 * 86_400_000_000, 7 * 86_400_000_000)
    assert sorted(user for user, _, _ in rows) == sorted(expected)
    assert all((at, item) in expected[user] for user, at, item in rows)


def test_the_state_is_what_the_server_had_by_then_and_what_is_asked_lies_after_it(tmp_path):
    """ann came before the cut, bob clicks three things after it, zoë one."""
    day, after = 86_400, 60 * 86_400
    told = [("ann", "milk", 5 * day), ("ann", "soap", after + 9), ("bob", "milk", after + 10), ("bob", "bread", after + 20)]
    told += [("bob", "soap", after + 30), ("zoë", "milk", after + 40)]
    write(tmp_path, [(who, item, second, None) for who, item, second in told])
    with open_tables(tmp_path, load_system("shop"), CUT_DAY, DAYS) as tables:
        asked.draw(tables, CUT_DAY, DAYS)
        assert asked.names(tables) == ["bob"]
        assert asked.write_states(tables, CUT_DAY, np.full((1, 1), np.nan, np.float32), ("f",), tmp_path) == 1
        ((following,),) = tables.backend.con.execute("SELECT item_id FROM asked").fetchall()
        later = {item for (item,) in tables.backend.con.execute(f"SELECT item_id FROM {asked.since('outcomes')}").fetchall()}
    states = StateTable.load(asked_folder(tmp_path))
    at = states.asked_day(0)
    second = round((at - CUT_DAY) / SECOND)
    assert second in (10, 20)
    assert following == {10: "bread", 20: "soap"}[second]
    assert later == {10: {"bread", "soap"}, 20: {"soap"}}[second]
    by_hand = UserState("bob")
    for who, item, when in told:
        if who == "bob" and when <= after + second:
            by_hand = by_hand.with_positive(item_key(item), START.timestamp() / 86_400 + when * SECOND)
    assert states[0].keys.tolist() == by_hand.keys.tolist()
    np.testing.assert_allclose(states[0].last_day, by_hand.last_day, rtol=0, atol=1e-9)
    np.testing.assert_allclose(states[0].decayed, by_hand.decayed, rtol=1e-6)


def test_nobody_is_asked_at_the_end_of_the_rows(tmp_path):
    write(tmp_path, [("ann", "milk", 0, None), ("ann", "soap", 9, None)])
    with open_tables(tmp_path, load_system("shop"), CUT_DAY, DAYS) as tables:
        asked.draw(tables, CUT_DAY, DAYS)
        assert asked.write_states(tables, CUT_DAY, np.empty((0, 1), np.float32), ("f",), tmp_path) == 0
    assert asked_folder(tmp_path) == tmp_path / "users"


def test_a_history_is_as_old_as_it_was_when_its_user_was_asked(tmp_path):
    write(tmp_path, [("bob", "milk", 60 * 86_400 + 10, None), ("bob", "soap", 60 * 86_400 + 3610, None)])
    with open_tables(tmp_path, load_system("shop"), CUT_DAY, DAYS) as tables:
        asked.draw(tables, CUT_DAY, DAYS)
        asked.write_states(tables, CUT_DAY, np.full((1, 1), np.nan, np.float32), ("f",), tmp_path)
    states = StateTable.load(asked_folder(tmp_path))
    assert states.asked_day(0) == states.last_day[0] > states.cut_day
    keys = np.sort(np.array([item_key(item) for item in ITEMS], np.uint64))

    class Keys:
        """Enough of a catalogue."""

        def __len__(self):
            return len(keys)

        def rows_of_keys(self, wanted):
            return np.searchsorted(keys, wanted).astype(np.int32)

    assert HistoryMatrix.of(states, Keys()).decayed.tolist() == states.decayed.tolist()
    late = replace(states, asked_days=states.asked_days + 15)
    np.testing.assert_allclose(HistoryMatrix.of(late, Keys()).decay(15.0), np.exp(-1), rtol=1e-5)
