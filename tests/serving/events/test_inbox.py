"""The event log: what was acknowledged is there, once, whatever happens."""

import asyncio
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.events.inbox import Inbox
from serving.events.log import LogUnavailable
from serving.events.sqlite import SqliteLog, read_log
from serving.messages import Event
from serving.state.sqlite import SqliteStore
from serving.state.states import States
from serving.state.store import StoreUnavailable
from serving.system import Learning
from tests.serving.servers import until


def event(number: int, user: str = "u") -> Event:
    return Event(f"e{number}", "click", user, f"i{number}", datetime(2024, 10, 4, 12, tzinfo=UTC))


def ids(folder: Path) -> list[str]:
    return [one.event_id for _, one in read_log(folder)]


def test_an_event_sent_again_is_known_and_kept_once(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    assert log.append([event(1), event(2)]) == ["new", "new"]
    assert log.append([event(2), event(3), event(3)]) == ["duplicate", "new", "duplicate"]
    log.close()
    assert ids(tmp_path) == ["e1", "e2", "e3"]


def test_a_reader_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    log.append([event(n) for n in range(5)])
    last = [seq for seq, _ in read_log(tmp_path)][2]
    assert [one.event_id for _, one in read_log(tmp_path, last)] == ["e3", "e4"]
    log.close()


def test_a_log_that_cannot_be_opened_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogUnavailable, match="file"):
        SqliteLog(tmp_path / "file")


def inbox(folder: Path) -> Inbox:
    return Inbox(lambda: SqliteLog(folder), lambda: States(SqliteStore(folder / "states", 1, log="log"), None, Learning()))


async def test_many_requests_at_once_are_all_acknowledged_and_in_the_states(tmp_path: Path) -> None:
    box = inbox(tmp_path)
    taken = await asyncio.gather(*(box.take([event(n), event(n + 1)]) for n in range(0, 100, 2)))
    assert all(one == ["new", "new"] for one in taken)
    states = States(SqliteStore(tmp_path / "states", 1, log="log"), None, Learning())
    assert len(states.read("u").session_keys) == 64  # the latest of a hundred
    states.store.close()
    box.close()
    assert len(ids(tmp_path)) == 100


async def test_events_are_refused_while_the_log_is_down_and_taken_when_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("in the way")
    box = inbox(folder)
    with pytest.raises(LogUnavailable):
        await box.take([event(1)])
    folder.unlink()
    assert await box.take([event(1)]) == ["new"]
    box.close()
    assert ids(folder) == ["e1"]


async def test_events_are_acknowledged_while_the_store_is_down_and_folded_when_it_is_back(tmp_path: Path) -> None:
    down = threading.Event()
    down.set()

    def states() -> States:
        if down.is_set():
            raise StoreUnavailable("down")
        return States(SqliteStore(tmp_path / "states", 1, log="log"), None, Learning())

    box = Inbox(lambda: SqliteLog(tmp_path), states)
    assert await box.take([event(1)]) == ["new"]
    assert box.behind == 1
    down.clear()
    assert await box.take([event(2)]) == ["new"]
    until(lambda: box.behind == 0, 10)  # the writer tries again twice a second
    assert len(states().read("u").session_keys) == 2
    box.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_writer_that_breaks_lets_no_request_wait(tmp_path: Path) -> None:
    def states() -> States:
        if breaking.is_set():
            raise ZeroDivisionError("not foreseen")
        raise StoreUnavailable("not yet")

    breaking = threading.Event()
    box = Inbox(lambda: SqliteLog(tmp_path), states)
    assert box.settle(10)
    breaking.set()
    assert await box.take([event(1)]) == ["new"]  # it is in the log
    until(lambda: not box.alive, 10)
    with pytest.raises(LogUnavailable, match="not foreseen"):
        await box.take([event(2)])
    assert ids(tmp_path) == ["e1"]
    box.close()  # until the thread is gone, so that what it raised is this test's and not the next one's


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from serving.events.sqlite import SqliteLog
from serving.messages import Event
log = SqliteLog(Path(sys.argv[1]))
for number in range(1_000_000):
    log.append([Event(f"e{number}-{part}", "click", "u", "i", datetime(2024, 10, 4, tzinfo=UTC)) for part in range(3)])
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 40])
def test_every_acknowledged_event_is_in_the_log_after_a_kill_and_none_twice(tmp_path: Path, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = []
    for line in writer.stdout:
        acknowledged.append(int(line))
        if len(acknowledged) == after:
            writer.kill()
    writer.wait(10)
    writer.stdout.close()
    kept = ids(tmp_path)
    assert len(kept) == len(set(kept))
    assert {f"e{number}-{part}" for number in acknowledged for part in range(3)} <= set(kept)
    log = SqliteLog(tmp_path)  # the client sends its last batch again
    assert log.append([event(0)]) == ["new"]
    log.close()
    assert json.dumps(ids(tmp_path)[-1]) == '"e0"'


async def test_a_log_that_is_removed_before_the_first_event_is_not_begun_anew_unnoticed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "states", 1, log="log")
    box = Inbox(lambda: SqliteLog(tmp_path / "log"), lambda: States(store, None, Learning()))
    assert box.settle(10)
    (tmp_path / "log").rename(tmp_path / "kept")
    (tmp_path / "log").mkdir()
    with pytest.raises(LogUnavailable, match="removed under this server"):
        await box.take([event(1)])
    (tmp_path / "log").rmdir()
    (tmp_path / "kept").rename(tmp_path / "log")
    assert await box.take([event(1)]) == ["new"]
    box.close()
    assert ids(tmp_path / "log") == ["e1"]
