"""Users' states: one read, events in any order and any number of times, and another bundle's cut."""

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.state.sqlite import SqliteStore
from serving.state.states import States, open_store
from serving.state.store import StateEvent, StateStore, StoreUnavailable
from serving.state.user_state import UserState
from serving.system import Learning
from tests.serving import tiny_bundle
from tests.serving.tiny_bundle import DAY

TABLE = tiny_bundle.states()
LEARNING = Learning()
NUMBERS = itertools.count()
Open = Callable[[], StateStore]


def event(number: int, user: str = "u01", kind: str = "click", item: str = "i100", day: float | None = None) -> StateEvent:
    return StateEvent(f"e{number}", user, item, kind, DAY + number / 1000 if day is None else day)


@pytest.fixture(params=["sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same store again and again, as workers do; empty at the start."""
    made: list[StateStore] = []
    if request.param == "redis":
        import redis

        url = request.getfixturevalue("redis_url")
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    else:
        url = f"sqlite:{tmp_path / 'states.sqlite'}"

    def open_again() -> StateStore:
        made.append(open_store(url, 1000))
        return made[-1]

    yield open_again
    for store in made:
        store.close()


def slow_fold(user: str, events: list[StateEvent]) -> UserState:
    """The obvious reference: each event once, one after the other."""
    state = TABLE[TABLE.index(user)] if TABLE.index(user) >= 0 else UserState(user)
    from serving.bundle.catalogue import item_key

    for one in {one.event_id: one for one in reversed(events)}.values():
        key = item_key(one.item_id)
        state = state.with_positive(key, one.day) if one.kind == "purchase" else state.with_session_event(key, one.kind, one.day)
    return state


def alike(left: UserState, right: UserState) -> bool:
    return (
        left.keys.tolist() == right.keys.tolist()
        and left.counts.tolist() == right.counts.tolist()
        and np.allclose(left.decayed, right.decayed, rtol=1e-5)
        and sorted(zip(left.session_days, left.session_keys, strict=True))
        == sorted(zip(right.session_days, right.session_keys, strict=True))
    )


def test_a_user_without_events_is_read_from_the_cut_and_a_stranger_is_empty(opened: Open) -> None:
    states = States(opened(), TABLE, LEARNING)
    assert states.read("u01").keys.tolist() == TABLE[1].keys.tolist()
    assert states.read("stranger").is_unknown


def test_a_click_and_a_purchase_are_in_the_next_read_of_another_worker(opened: Open) -> None:
    States(opened(), TABLE, LEARNING).apply([event(1), event(2, kind="purchase", item="i101"), event(3, kind="impression")])
    state = States(opened(), TABLE, LEARNING).read("u01")
    assert len(state.session_keys) == 1
    assert len(state.keys) == len(TABLE[1].keys) + 1


EVENTS = st.lists(
    st.builds(
        lambda number, kind, item: event(number, kind=kind, item=f"i{item:03}"),
        st.integers(0, 12),
        st.sampled_from(["click", "purchase"]),
        st.integers(0, 5),
    ),
    max_size=14,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(EVENTS, st.data())
def test_events_folded_in_any_parts_and_again_make_what_each_once_makes(
    opened: Open, events: list[StateEvent], data: st.DataObject
) -> None:
    unique = list({one.event_id: one for one in reversed(events)}.values())
    user = f"new user {next(NUMBERS)}"  # the store outlives an example
    mine = [replace(one, user_id=user) for one in unique]
    states = States(opened(), TABLE, LEARNING)
    cut = data.draw(st.integers(0, len(mine)))
    again = data.draw(st.permutations(mine))
    for part in (mine[:cut], mine[cut:], again[: len(again) // 2]):
        states.apply(part)
    assert alike(states.read(user), slow_fold(user, mine))


def test_workers_changing_one_user_at_once_lose_nothing(opened: Open) -> None:
    def work(first: int) -> None:
        states = States(opened(), TABLE, LEARNING)
        for number in range(first, first + 12):
            states.apply([event(number)])

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(States(opened(), TABLE, LEARNING).read("u01").session_keys) == 36


def test_workers_that_open_a_new_database_at_once_all_get_it(tmp_path: Path) -> None:
    """SQLite refuses, without waiting, those who ask while one turns the file to WAL: without asking again one worker in fifty failed."""
    failed: list[StoreUnavailable] = []

    def work(path: Path, start: threading.Barrier) -> None:
        with closing(SqliteStore(path, 10)) as store:
            start.wait()
            try:
                store.change(["u01"], lambda *_: (b"state", b"recent"))
            except StoreUnavailable as error:
                failed.append(error)

    for attempt in range(30):
        start = threading.Barrier(4)
        threads = [threading.Thread(target=work, args=(tmp_path / f"{attempt}.sqlite", start)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed


def test_a_later_cuts_table_takes_the_events_it_has_not_seen_and_no_other(opened: Open) -> None:
    States(opened(), TABLE, LEARNING).apply(
        [event(1, kind="purchase", item="i150", day=DAY + 1), event(2, kind="purchase", item="i151", day=DAY + 3)]
    )
    later = replace(TABLE, cut_day=DAY + 2)  # knows, let us say, nothing of the first
    state = States(opened(), later, LEARNING).read("u01")
    assert len(state.keys) == len(TABLE[1].keys) + 1
    back = States(opened(), TABLE, LEARNING).read("u01")  # rolled back: both again
    assert len(back.keys) == len(TABLE[1].keys) + 2


@pytest.mark.parametrize("damage", [lambda value: value[:60], lambda value: value[:-1] + b"Z"], ids=["cut short", "nothing to say"])
def test_a_damaged_value_is_folded_again_from_the_events_beside_it(opened: Open, damage: Callable[[bytes], bytes]) -> None:
    store = opened()
    states = States(store, TABLE, LEARNING)
    states.apply([event(1), event(2, kind="hide")])
    whole = states.read("u01").pack()
    store.change(["u01"], lambda _, value, recent: (damage(value or b""), recent or b""))
    assert states.read("u01").pack() == whole


def test_nothing_is_kept_of_a_user_who_consents_to_nothing(opened: Open) -> None:
    states = States(opened(), TABLE, LEARNING)
    states.apply([event(1, user="u11"), event(2, user="u11", kind="purchase")])
    assert states.read("u11").keys.tolist() == TABLE[11].keys.tolist()
    assert len(states.read("u11").session_keys) == 0


def test_a_store_that_cannot_be_reached_says_so_and_the_cut_is_still_known(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("not a folder")
    for url in (f"sqlite:{tmp_path / 'a file' / 'states.sqlite'}", "redis://127.0.0.1:1/0"):
        states = States(open_store(url, 50), TABLE, LEARNING)
        with pytest.raises(StoreUnavailable):
            states.read("u01")
        with pytest.raises(StoreUnavailable):
            states.apply([event(1)])
        assert states.known("u01").keys.tolist() == TABLE[1].keys.tolist()


def test_a_database_that_is_damaged_and_put_back_while_it_is_open_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "states.sqlite"
    states = States(SqliteStore(path, 0.05, look_seconds=0.0), TABLE, LEARNING)
    states.apply([event(1)])
    whole = states.read("u01").pack()
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(tmp_path / "kept")) as kept:
        db.backup(kept)
    for beside in ("-wal", "-shm"):  # the log alone would do
        Path(f"{path}{beside}").unlink()
    path.unlink()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnavailable):
        states.read("u01")
    (tmp_path / "kept").replace(path)
    assert states.read("u01").pack() == whole
    states.store.close()


def test_an_unknown_store_is_refused_with_what_is_known() -> None:
    with pytest.raises(ValueError, match="expected sqlite:PATH"):
        open_store("mongo:x", 10)


def test_the_sqlite_store_reads_while_another_connection_writes(tmp_path: Path) -> None:
    writer, reader = SqliteStore(tmp_path / "s", 0.01), SqliteStore(tmp_path / "s", 0.01)
    writer.change(["a"], lambda *_: (b"1", b""))

    def fold(*_: object) -> tuple[bytes, bytes]:
        assert reader.get("a").value == b"1"  # inside the writer's transaction
        return b"2", b""

    writer.change(["a"], fold)
    assert reader.get("a").value == b"2"
    writer.close()
    reader.close()
