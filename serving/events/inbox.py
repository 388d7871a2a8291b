"""The way in: one writer thread commits what has gathered since its last commit, so that many requests share one fsync; another folds the
log into the users' states as far as it now reaches, and only then the requests are answered: the next request sees their events.

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

from serving.events.consumer import Consumer
from serving.events.log import EventLog, LogUnavailable, Outcome
from serving.events.sqlite import SqliteLog
from serving.messages import Event
from serving.state.states import States
from serving.state.store import StoreUnavailable

_WAITING = 256  # requests that may wait for the writer
_TOGETHER = 2_000  # events in one commit
_LOOK_SECONDS = 0.5  # after the store failed; also how often it is looked whether others wrote, or the store lost what it had
_CLOSE_SECONDS = 2.0  # for the last fold
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
    """Events on their way to the log, through one writer thread, and from there into the states, through one that folds.

    Each makes its own connections: a store that hangs, or a resolver that does not find it, keeps nobody from acknowledging.
    """

    def __init__(self, log: Callable[[], EventLog], states: Callable[[], States]) -> None:
        self._open_log, self._open_states = log, states
        self._queue: queue.Queue[tuple[list[Event], Future[list[Outcome]]] | None] = queue.Queue(_WAITING)
        self._appended = self._folded = 0  # events this worker put into the log; of those, how many the states have
        self._late = False  # the last to be acknowledged were not in the states by then
        self._changed = threading.Condition()
        self._news, self._opened, self._settled, self._closing = (threading.Event() for _ in range(4))
        self._down = False  # the store
        self._broken: Exception | None = None
        self._log: EventLog | None = None
        self._consumer: Consumer | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=work.__name__, daemon=True) for work in (self._writes, self._folds)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def behind(self) -> int:
        """Acknowledged events not yet in their users' states, as far as the log and the store could be asked."""
        return max(self._consumer.behind if self._consumer is not None else 0, self._appended - self._folded)

    @property
    def waiting(self) -> int:
        """Events that answers have to do without, since the store is down or does not keep up; 0 however many are on their way."""
        return self.behind if self._late else 0

    @property
    def reads(self) -> bool:
        """Whether the log could be opened since the start: without it nobody knows whether the states lack something."""
        return self._consumer is not None

    @property
    def alive(self) -> bool:
        """False when a thread met what it did not foresee: only a restart helps."""
        return self._broken is None

    def settle(self, seconds: float) -> bool:
        """Wait until the log is open and the states have caught up with it, or cannot for now; False when either takes longer."""
        return self._opened.wait(seconds) and self._settled.wait(seconds)

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
        """Write what has been taken and fold what can be folded at once, then stop. A store that hangs is waited for no longer."""
        self._queue.put(None)
        writer, folder = self._threads
        writer.join()
        self._closing.set()
        self._news.set()
        folder.join(_CLOSE_SECONDS)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._broken = error  # no request may wait for a writer that is gone
            while not self._queue.empty():
                waiting = self._queue.get_nowait()
                if waiting is not None:
                    waiting[1].set_exception(LogUnavailable(f"the event writer stopped ({error!r}): restart this server"))
            raise
        finally:
            with self._changed:
                self._changed.notify_all()
            self._opened.set()
            self._settled.set()

    def _writes(self) -> None:
        with suppress(LogUnavailable):  # now, not at the first event: a log that is removed in between would be begun anew unnoticed
            self._log = self._open_log()
        self._opened.set()
        while (batch := self._gather()) is not None:
            self._write(batch)
        if self._log is not None:
            self._log.close()

    def _gather(self) -> Batch | None:
        """Everything that waits, up to a commit's worth; None when closed."""
        first = self._queue.get()
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
        self._await_fold(outcomes.count("new"))
        for part, done in batch:  # they are in the log, whatever became of the states
            done.set_result(outcomes[: len(part)])
            outcomes = outcomes[len(part) :]

    def _await_fold(self, count: int) -> None:
        """Let the states catch up with what was appended, for a moment, and not while the store is down."""
        with self._changed:
            self._appended += count
            self._news.set()
            goal = self._appended
            self._changed.wait_for(lambda: self._folded >= goal or self._down or self._broken is not None, _ANSWER_SECONDS)
            self._late = self._folded < goal

    def _folds(self) -> None:
        while not self._closing.is_set():
            self._news.clear()
            goal = self._appended
            if self._fold():
                self._reached(goal)
                self._news.wait(_LOOK_SECONDS)
            else:
                self._closing.wait(_LOOK_SECONDS)
        self._fold()  # once more, what was taken last
        if self._consumer is not None:
            self._consumer.close()

    def _reached(self, goal: int) -> None:
        """The states have what this worker had appended by then."""
        with self._changed:
            self._folded, self._down = goal, False
            self._late = self._late and self._folded < self._appended
            self._changed.notify_all()
        self._settled.set()

    def _fold(self) -> bool:
        """Fold all that is left of the log; False where log or store are down."""
        try:
            consumer = self._ready()
            while consumer.advance():
                if self._closing.is_set():
                    return False
        except StoreUnavailable:
            self._failed(store=True)
            if self._consumer is not None:
                with suppress(LogUnavailable):  # it will be asked again
                    self._consumer.look()
            return False
        except LogUnavailable:
            self._failed(store=False)
            return False
        return True

    def _failed(self, *, store: bool) -> None:
        with self._changed:
            self._down = store
            self._late = self._late or store
            self._changed.notify_all()
        self._settled.set()

    def _ready(self) -> Consumer:
        self._consumer = self._consumer or Consumer(self._open_log(), self._open_states)
        return self._consumer
