"""The event log: what was acknowledged is in it, once, whatever happens to the process.

`dir:PATH` is one append-only SQLite database (WAL, synchronous=FULL: on disk before it is acknowledged) shared by the workers of a machine;
`kafka://…` (serving/events/kafka.py) a topic. `Inbox` is the way in: one writer thread commits what has gathered since its last commit, so
that many requests share one fsync, folds the events into the users' states, and only then lets the requests answer.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from time import monotonic

from serving.events.log import EventLog, LogUnavailable, state_event
from serving.events.sqlite import SqliteLog, read_log
from serving.messages import Event
from serving.state.states import States
from serving.state.store import StateEvent, StoreUnavailable

_WAITING = 256  # requests that may wait for the writer
_TOGETHER = 2_000  # events in one commit
_PENDING = 10_000  # events in the log whose state could not be written yet
_RETRY_SECONDS = 0.5


def fold_log(folder: Path, states: States) -> int:
    """Fold a whole embedded log into states that are new and empty, as after the store was lost; how many events."""
    count, part = 0, []
    for _, event in read_log(folder):
        part.append(state_event(event))
        count += 1
        if len(part) == _TOGETHER:
            states.apply(part)
            part = []
    states.apply(part)
    return count


def open_log(url: str) -> EventLog:
    """The log an `--events` option names."""
    scheme, _, rest = url.partition(":")
    if scheme == "dir" and rest:
        return SqliteLog(Path(rest))
    if scheme == "kafka":
        from serving.events.kafka import KafkaLog

        return KafkaLog(url)
    raise ValueError(f"unknown event log {url!r}: expected dir:PATH or kafka://HOST:PORT/TOPIC")


class Inbox:
    """Events on their way to the log and the states, through one writer thread. `states` makes the thread's own connection."""

    def __init__(self, log: Callable[[], EventLog], states: Callable[[], States]) -> None:
        self._open_log, self._open_states = log, states
        self._queue: queue.Queue[tuple[list[Event], Future[list[bool]]] | None] = queue.Queue(_WAITING)
        self._pending: deque[StateEvent] = deque(maxlen=_PENDING)
        self._retry_at = 0.0
        self._broken: Exception | None = None
        self._log: EventLog | None = None
        self._states: States | None = None
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> int:
        """Acknowledged events not yet in their users' states, because the store was down."""
        return len(self._pending)

    @property
    def alive(self) -> bool:
        """False when the writer met what it did not foresee: only a restart helps."""
        return self._broken is None

    async def take(self, events: list[Event]) -> list[bool]:
        """Acknowledge events; for each, was it new? Raises `LogUnavailable` when the log is down or too many requests wait."""
        if self._broken is not None:
            raise LogUnavailable(f"the event writer stopped ({self._broken!r}): restart this server")
        done: Future[list[bool]] = Future()
        try:
            self._queue.put_nowait((events, done))
        except queue.Full:
            raise LogUnavailable(f"{_WAITING} requests wait for the event log already: send again later") from None
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """Write what has been taken, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self._broken = error  # no request may wait for a writer that is gone
            while not self._queue.empty():
                waiting = self._queue.get_nowait()
                if waiting is not None:
                    waiting[1].set_exception(LogUnavailable(f"the event writer stopped ({error!r}): restart this server"))
            raise

    def _work(self) -> None:
        while True:
            batch = self._gather()
            if batch is None:
                break
            if batch:
                self._write(batch)
            self._catch_up()
        self._retry_at = 0.0
        self._catch_up()
        for part in (self._log, self._states.store if self._states else None):
            if part is not None:
                part.close()

    def _gather(self) -> list[tuple[list[Event], Future[list[bool]]]] | None:
        """Everything that waits, up to a commit's worth; [] when it is time to try the pending ones; None when closed."""
        try:
            first = self._queue.get(timeout=_RETRY_SECONDS if self._pending else None)
        except queue.Empty:
            return []
        batch = []
        while first is not None:
            batch.append(first)
            if sum(len(events) for events, _ in batch) >= _TOGETHER:
                return batch
            try:
                first = self._queue.get_nowait()
            except queue.Empty:
                return batch
        if batch:
            self._queue.put(None)  # seen too early: finish these, then close
            return batch
        return None

    def _write(self, batch: list[tuple[list[Event], Future[list[bool]]]]) -> None:
        events = [event for part, _ in batch for event in part]
        try:
            self._log = self._log or self._open_log()
            new = self._log.append(events)
        except Exception as error:  # noqa: BLE001 -- handed to the requests that wait
            for _, done in batch:
                done.set_exception(error if isinstance(error, LogUnavailable) else LogUnavailable(f"the event log failed: {error!r}"))
            return
        self._pending.extend(state_event(event) for event in events)
        try:
            self._catch_up()
        finally:  # they are in the log, whatever became of the states
            for part, done in batch:
                done.set_result(new[: len(part)])
                new = new[len(part) :]

    def _catch_up(self) -> None:
        """Fold the pending events into the states, or keep them for the next try. Folding one twice changes nothing."""
        if not self._pending or monotonic() < self._retry_at:
            return
        try:
            self._states = self._states or self._open_states()
            self._states.apply(list(self._pending))
        except StoreUnavailable:
            self._retry_at = monotonic() + _RETRY_SECONDS  # so that acknowledging does not wait for a store that is down
            return
        self._pending.clear()
