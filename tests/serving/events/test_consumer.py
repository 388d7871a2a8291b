"""States are what the log says up to the position kept with them: through outages, restarts, losses and kills, on every log and store."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.events.consumer import Consumer
from serving.events.inbox import Inbox
from serving.events.log import LogUnavailable, Position
from serving.events.sqlite import SqliteLog, read_log
from serving.messages import Event
from serving.state.sqlite import SqliteStore
from serving.state.states import States, open_store
from serving.system import Learning
from tests.serving.servers import until

MOMENT = datetime(2024, 10, 4, 12, tzinfo=UTC)
Opened = Callable[[], States]


def event(number: int, user: str = "u", kind: str = "click", item: str = "") -> Event:
    return Event(f"e{number}", kind, user, item or f"i{number}", MOMENT)  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens the states of the log again and again; empty at the start."""
    url = f"sqlite:{tmp_path / 'states' / 'states.sqlite'}"
    if request.param == "redis":
        import redis

        url = request.getfixturevalue("redis_url")
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    made: list[States] = []

    def states() -> States:
        made.append(States(open_store(url, 500, "log"), None, Learning()))
        return made[-1]

    yield states
    for one in made:
        one.store.close()


@pytest.fixture
def lost(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], None]:
    """Makes the store lose everything, as a Redis without a file that is started again, or a removed database."""

    def lose() -> None:
        if "redis" in request.node.name:
            import redis

            with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:
                client.flushdb()
        else:
            shutil.rmtree(tmp_path / "states")

    return lose


def folded(log: SqliteLog, states: States) -> Consumer:
    made = Consumer(log, lambda: states)
    while made.advance():
        pass
    return made


def test_the_position_moves_with_the_states_and_a_second_consumer_goes_on_there(opened: Opened, tmp_path: Path) -> None:
    log, states = SqliteLog(tmp_path), opened()
    log.append([event(number) for number in range(30)])
    assert folded(log, states).behind == 0
    log.append([event(number) for number in range(30, 40)])
    assert folded(log, opened()).behind == 0
    state, whole = states.look("u")
    assert (len(state.session_keys), whole) == (40, True)
    log.close()


def test_consumers_that_fold_at_once_fold_each_event_once(opened: Opened, tmp_path: Path) -> None:
    writer = SqliteLog(tmp_path)
    writer.append([event(number, "u", "purchase", "i1") for number in range(900)])

    def work() -> None:
        log = SqliteLog(tmp_path)
        folded(log, opened())
        log.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened().read("u").counts.tolist() == [900]
    writer.close()


def test_a_store_that_lost_everything_says_so_until_it_is_made_again_from_the_log(
    opened: Opened, tmp_path: Path, lost: Callable[[], None]
) -> None:
    log, states = SqliteLog(tmp_path), opened()
    log.append([event(number, f"u{number % 7}", "purchase") for number in range(2500)])
    folded(log, states)
    before = [states.read(f"u{number}").keys.tolist() for number in range(7)]
    states.store.close()
    lost()
    states = opened()
    assert states.look("u0")[1] is False
    consumer = Consumer(log, lambda: states)
    assert consumer.advance()
    assert consumer.behind == 1500
    assert states.look("u0")[1] is False  # a part is there
    folded(log, states)
    assert states.look("u0")[1] is True
    assert [states.read(f"u{number}").keys.tolist() for number in range(7)] == before
    log.close()


def test_an_older_copy_of_the_log_put_back_is_folded_from_its_start_and_changes_nothing_twice(opened: Opened, tmp_path: Path) -> None:
    log, states = SqliteLog(tmp_path), opened()
    log.append([event(number, "u", "purchase", "i1") for number in range(10)])
    with closing(sqlite3.connect(log.path)) as db, closing(sqlite3.connect(tmp_path / "copy")) as copy:
        db.backup(copy)
    log.append([event(number, "u", "purchase", "i1") for number in range(10, 20)])
    folded(log, states)
    log.close()
    for end in ("-wal", "-shm"):
        log.path.with_name(f"{log.path.name}{end}").unlink(missing_ok=True)
    (tmp_path / "copy").replace(log.path)
    log = SqliteLog(tmp_path)
    log.append([event(number, "u", "purchase", "i1") for number in range(20, 35)])  # their numbers in the log were others' before
    folded(log, states)
    assert states.read("u").counts.tolist() == [35]
    log.close()


def test_an_id_used_again_with_another_body_changes_nothing(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    same_moment = datetime.fromisoformat("2024-10-04T14:00:00+02:00")
    assert log.append([event(1)]) == ["new"]
    assert log.append([Event("e1", "click", "u", "i1", same_moment), Event("e1", "click", "other", "i1", MOMENT)]) == [
        "duplicate",
        "conflict",
    ]
    assert [one.user_id for _, one in read_log(tmp_path)] == ["u"]
    log.close()


@pytest.mark.parametrize("ends", [("", "-wal", "-shm"), ("",), ("-wal",)], ids=["all files", "the database", "its write-ahead log"])
def test_a_log_removed_under_the_server_acknowledges_nothing(tmp_path: Path, ends: tuple[str, ...]) -> None:
    log = SqliteLog(tmp_path)
    log.append([event(1)])
    for end in ends:
        (tmp_path / f"events.sqlite{end}").rename(tmp_path / f"kept{end}")
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="removed under this server"):
            log.append([event(2)])
    if ends != ("",):
        for end in ends:
            (tmp_path / f"kept{end}").rename(tmp_path / f"events.sqlite{end}")
        assert log.append([event(2)]) == ["new"]
        assert [one.event_id for _, one in read_log(tmp_path)] == ["e1", "e2"]
    log.close()


@pytest.mark.parametrize("end", ["", "-wal"], ids=["the database", "its write-ahead log"])
def test_a_log_that_was_emptied_in_place_acknowledges_nothing_until_its_content_is_back(tmp_path: Path, end: str) -> None:
    log, reading = SqliteLog(tmp_path), SqliteLog(tmp_path)
    log.append([event(1)])
    file = tmp_path / f"events.sqlite{end}"
    assert len(reading.read(Position(), 10, 0.0).events) == 1
    content = file.read_bytes()
    file.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="cut short under this server"):
            log.append([event(2)])
        with pytest.raises(LogUnavailable, match="cut short under this server"):
            reading.read(Position(), 10, 0.0)
    file.write_bytes(content)
    assert log.append([event(1), event(2)]) == ["duplicate", "new"]
    for one in (log, reading):
        one.close()
    assert [one.event_id for _, one in read_log(tmp_path)] == ["e1", "e2"]


def test_an_empty_file_in_the_log_s_place_acknowledges_nothing(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    log.append([event(1)])
    (tmp_path / "empty").touch()
    (tmp_path / "empty").replace(log.path)
    with pytest.raises(LogUnavailable, match="replaced under this server"):
        log.append([event(2)])
    for end in ("-wal", "-shm"):
        log.path.with_name(f"{log.path.name}{end}").unlink()
    with pytest.raises(LogUnavailable, match="removed under this server"):
        log.append([event(2)])
    log.close()


def test_another_log_in_its_place_is_refused_and_its_own_copy_is_taken_up(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log")
    log.append([event(1)])
    with closing(sqlite3.connect(log.path)) as db, closing(sqlite3.connect(tmp_path / "copy")) as copy:
        db.backup(copy)
    other = SqliteLog(tmp_path / "other")
    other.append([event(9)])
    other.close()
    shutil.copy(other.path, tmp_path / "replacing")
    (tmp_path / "replacing").replace(log.path)
    with pytest.raises(LogUnavailable, match="replaced under this server"):
        log.append([event(2)])
    for end in ("-wal", "-shm"):
        log.path.with_name(f"{log.path.name}{end}").unlink(missing_ok=True)
    (tmp_path / "copy").replace(log.path)
    assert log.append([event(2)]) == ["new"]
    assert [one.event_id for _, one in read_log(tmp_path / "log")] == ["e1", "e2"]
    log.close()


async def test_thirteen_thousand_events_taken_while_the_store_is_locked_are_all_in_the_states_afterwards(tmp_path: Path) -> None:
    def states() -> States:
        return States(SqliteStore(tmp_path / "states", 0.01, log="log"), None, Learning())

    box = Inbox(lambda: SqliteLog(tmp_path), states)
    assert box.settle(10)
    with closing(sqlite3.connect(tmp_path / "states", isolation_level=None, timeout=10)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        for part in range(13):
            taken = await box.take([event(number, f"w{number}") for number in range(1000 * part, 1000 * part + 1000)])
            assert taken == ["new"] * 1000
        assert (box.behind, box.waiting) == (13_000, 13_000)
        lock.execute("ROLLBACK")
    until(lambda: box.behind == 0 and not box.waiting, 60)
    box.close()
    with closing(sqlite3.connect(tmp_path / "states")) as db:
        assert db.execute("SELECT COUNT(*) FROM states_3 WHERE user_id LIKE 'w%'").fetchone() == (13_000,)
