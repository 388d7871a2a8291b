"""The way in: one writer thread commits what has gathered since its last commit, so that many requests share one fsync, folds the log into
the users' states as far as it now reaches, and only then lets the requests answer: the next request sees their events.

`dir:PATH` is one append-only SQLite database (WAL, synchronous=FULL: on disk before it is acknowledged) shared by the workers of a machine;
`kafka://…` (serving/events/kafka.py) a topic. While the store is down events are acknowledged all the same, and folded when it is back.
"""

import asyncio
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from time import monotonic

from serving.events.consumer import Consumer
from serving.events.log import EventLog, LogUnavailable, Outcome
from serving.events.sqlite import SqliteLog
from serving.messages import Event
from serving.state.states import States
from serving.state.store import StoreUnavailable

_WAITING = 256  # requests that may wait for the writer
_TOGETHER = 2_000  # events in one commit
_RETRY_SECONDS = 0.5  # after the store failed; also how often it is looked whether others wrote, or the store lost what it had
_ANSWER_SECONDS = 0.25  # an acknowledgement waits no longer than this for the fold

Batch = list[tuple[list[Event], "Future[list[Outcome]]"]]


def open_log(url: str) -> EventLog:
    """The log an `--events` option names."""
    scheme, _, rest = url.partition(":")
    if scheme == "dir" and rest:
        return SqliteLog(Path(rest))
    if scheme == "kafka":
        from serving.events.kafka import KafkaLog

        return KafkaLog(url)
    raise ValueError(f"unknown event log {url!r}: expected dir:PATH or kafka://HOST:PORT/TOPIC")


def log_name(url: str) -> str:
    """What a log is called in the store of the states: a topic by its address, a folder by its machine and path."""
    scheme, _, rest = url.partition(":")
    return f"{socket.gethostname()}:{Path(rest).resolve()}" if scheme == "dir" else url


class Inbox:
    """Events on their way to the log and the states, through one writer thread, which makes its own connections."""

    def __init__(self, log: Callable[[], EventLog], states: Callable[[], States]) -> None:
        self._open_log, self._open_states = log, states
        self._queue: queue.Queue[tuple[list[Event], Future[list[Outcome]]] | None] = queue.Queue(_WAITING)
        self._retry_at, self._down = 0.0, False  # of the store
        self._more = True  # the log may hold what is not folded
        self._settled = threading.Event()
        self._broken: Exception | None = None
        self._log: EventLog | None = None
        self._consumer: Consumer | None = None
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> int:
        """Acknowledged events not yet in their users' states, as far as the log and the store could be asked."""
        return self._consumer.behind if self._consumer is not None else 0

    @property
    def waiting(self) -> int:
        """Events that the store, which is down, does not have; 0 while it is there, however many are on their way."""
        return self.behind if self._down else 0

    @property
    def reads(self) -> bool:
        """Whether the log could be opened since the start: without it nobody knows whether the states lack something."""
        return self._consumer is not None

    @property
    def alive(self) -> bool:
        """False when the writer met what it did not foresee: only a restart helps."""
        return self._broken is None

    def settle(self, seconds: float) -> bool:
        """Wait until the states have caught up with the log, or cannot for now; False when that takes longer."""
        return self._settled.wait(seconds)

    async def take(self, events: list[Event]) -> list[Outcome]:
        """Acknowledge events; for each, what became of it. Raises `LogUnavailable` when the log is down or too many requests wait."""
        if self._broken is not None:
            raise LogUnavailable(f"the event writer stopped ({self._broken!r}): restart this server")
        done: Future[list[Outcome]] = Future()
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
        finally:
            self._settled.set()

    def _work(self) -> None:
        self._fold(0)
        while (batch := self._gather()) is not None:
            if batch:
                self._write(batch)
            else:
                self._fold(0)
        self._retry_at = 0.0
        self._fold(_ANSWER_SECONDS)
        if self._consumer is not None:
            self._consumer.close()
        if self._log is not None:
            self._log.close()

    def _gather(self) -> Batch | None:
        """Everything that waits, up to a commit's worth; [] when it is time to look at the log; None when closed."""
        going = self._more and monotonic() >= self._retry_at
        try:
            first = self._queue.get_nowait() if going else self._queue.get(timeout=_RETRY_SECONDS)
        except queue.Empty:
            return []
        batch: Batch = []
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

    def _write(self, batch: Batch) -> None:
        events = [event for part, _ in batch for event in part]
        try:
            self._log = self._log or self._open_log()
            outcomes = self._log.append(events)
        except Exception as error:  # noqa: BLE001 -- handed to the requests that wait
            for _, done in batch:
                done.set_exception(error if isinstance(error, LogUnavailable) else LogUnavailable(f"the event log failed: {error!r}"))
            return
        self._more = True
        try:
            self._fold(_ANSWER_SECONDS)
        finally:  # they are in the log, whatever became of the states
            for part, done in batch:
                done.set_result(outcomes[: len(part)])
                outcomes = outcomes[len(part) :]

    def _fold(self, seconds: float) -> None:
        """Fold what is left of the log for at most so long, or one part of it; leave it for later where log or store are down."""
        ends = monotonic() + seconds
        try:
            consumer = self._ready()
            if monotonic() < self._retry_at:  # so that acknowledging does not wait for a store that is down
                self._look()
                return
            while (more := consumer.advance()) and monotonic() < ends:
                pass
            self._more = more
            self._down = False
            if not more:
                self._settled.set()
        except StoreUnavailable:
            self._retry_at, self._down = monotonic() + _RETRY_SECONDS, True
            self._settled.set()
            self._look()
        except LogUnavailable:
            self._more = False  # looked at again with the next events, or in a while
            self._settled.set()

    def _look(self) -> None:
        """Count what waits for the store."""
        if self._consumer is not None:
            with suppress(LogUnavailable):  # it will be asked again
                self._consumer.look()

    def _ready(self) -> Consumer:
        self._log = self._log or self._open_log()
        self._consumer = self._consumer or Consumer(self._log, self._open_states)
        return self._consumer
