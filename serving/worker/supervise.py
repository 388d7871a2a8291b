"""One listening socket, held by this process and handed to its workers: they come and go, also for another bundle, and no request is lost.

uvicorn's and gunicorn's supervisors start a worker's successor when the worker has ended, and know no readiness and no bundle: here a
successor is ready before its predecessor is told that it is replaced.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.multiprocess import mark_process_dead

from serving.worker.control import Channel, Word
from serving.worker.options import Options
from serving.worker.release import BadRelease, Release, checked, read_release

_DEATHS, _WITHIN_SECONDS = 3, 60.0  # of each worker, before the supervisor gives up
_LOOK_SECONDS = 0.5  # at the release file
_READY_SECONDS = 180.0  # for a new release's workers
_END_SECONDS = 30.0  # for a worker that was told to stop, beyond its draining


@dataclass(eq=False)
class Worker:
    """A worker process and what is known of it."""

    process: subprocess.Popen[bytes]
    channel: Channel
    release: Release
    state: asyncio.Future[bool]  # True: ready; False: it ended before
    leaving: bool = False  # it drains
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Keeps `options.workers` workers of one release answering on a socket; follows a release file when there is one."""

    def __init__(self, options: Options, release: Release, listener: socket.socket, metrics: Path, log: Any) -> None:
        self._options, self._release, self._listener, self._metrics, self._log = options, release, listener, metrics, log
        self._workers: set[Worker] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping, self._filling = asyncio.Event(), asyncio.Lock()
        self._refused: str | None = None
        self._split = release.split
        self._deaths: deque[float] = deque(maxlen=_DEATHS * options.workers)
        self._status = 0

    async def run(self, refused: str | None = None) -> int:
        """Until SIGTERM or SIGINT, or until workers die faster than they can live; the exit status."""
        self._refused = refused
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        for _ in range(self._options.workers):
            await self._start(self._release)
        if self._options.follow is not None:
            self._beside(self._follow(self._options.follow))
        await self._stopping.wait()
        for worker in self._workers:
            self._signal(worker, signal.SIGTERM)
        await self._drained()
        await asyncio.gather(*(self._ends(worker) for worker in self._workers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._status

    async def _start(self, release: Release) -> Worker:
        ours, theirs = socket.socketpair()
        options = replace(
            self._options,
            bundle=Path(release.bundle),
            users=Path(release.users) if release.users is not None else None,
            retrieval=release.retrieval or self._options.retrieval,
            ranking=release.ranking or self._options.ranking,
            digest=release.digest,
            beside=msgspec.json.encode(release.beside).decode() if release.beside is not None else "",
            split=msgspec.json.encode(self._split if release is self._release else release.split).decode(),
            workers=1,
            follow=None,
            verify=False,
            rates=self._metrics / "rates",
            listen_fd=self._listener.fileno(),
            control_fd=theirs.fileno(),
        )
        process = subprocess.Popen(
            command(options),
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)},
            pass_fds=(self._listener.fileno(), theirs.fileno()),
            start_new_session=True,  # a Ctrl-C is for the supervisor, which tells its workers
        )
        theirs.close()
        worker = Worker(process, await Channel.of(ours), release, asyncio.get_running_loop().create_future())
        self._workers.add(worker)
        self._beside(self._watch(worker))
        return worker

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, worker: Worker) -> None:
        """Listen to a worker until it has ended."""
        await worker.channel.heard(lambda word: self._heard(worker, word))
        worker.channel.close()
        status = await asyncio.to_thread(worker.process.wait)
        mark_process_dead(worker.process.pid, str(self._metrics))
        self._workers.discard(worker)
        worker.ended.set()
        if not worker.state.done():
            worker.state.set_result(False)
        if not worker.leaving and not self._stopping.is_set() and worker.release is self._release:
            if status != -signal.SIGTERM:  # told to stop before it could say that it drains: no fault of its own
                self._died(status)
            await self._fill()

    def _heard(self, worker: Worker, word: Word) -> None:
        if word.say == "ready" and not worker.state.done():
            worker.state.set_result(True)
            worker.channel.tell(Word("release", self._refused, self._split if worker.release is self._release else None))
            self._relieve()
        elif word.say == "draining" and not worker.leaving:  # somebody told this one to stop
            worker.leaving = True
            if worker.release is self._release:
                self._beside(self._fill())
            else:
                worker.channel.tell(Word("replaced"))

    def _relieve(self) -> None:
        """Tell who drains that it is replaced, once as many workers as there should be take the new connections."""
        ready = sum(one.release is self._release and not one.leaving and one.state.done() for one in self._workers)
        if ready >= self._options.workers:
            self._replaced()

    def _replaced(self) -> None:
        for worker in self._workers:
            if worker.leaving:
                worker.channel.tell(Word("replaced"))

    async def _drained(self) -> None:
        """Workers take new connections for as long as they are to drain, all of them: there is nobody else."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_seconds):
                await asyncio.gather(*(worker.ended.wait() for worker in self._workers))
        self._replaced()

    def _died(self, status: int) -> None:
        """Count a worker's unforeseen end; too many of them end the supervisor."""
        now = asyncio.get_running_loop().time()
        self._deaths.append(now)
        self._log.error("a worker ended", status=status)
        if len(self._deaths) == self._deaths.maxlen and now - self._deaths[0] < _WITHIN_SECONDS:
            self._log.error("workers die faster than they can live: see their messages above")
            self._status = 1
            self._stopping.set()

    async def _fill(self) -> None:
        async with self._filling:  # two that end at once want one successor each
            serving = sum(worker.release is self._release and not worker.leaving for worker in self._workers)
            for _ in range(0 if self._stopping.is_set() else self._options.workers - serving):
                await self._start(self._release)

    async def _follow(self, path: Path) -> None:
        """Look at the release file again and again; a release that cannot be served is said to be so and changes nothing."""
        seen: bytes | None = None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            text = _text(path)
            if text == seen:
                continue
            seen = text
            try:
                await self._change(read_release(path))
            except BadRelease as error:
                self._tell(str(error))

    async def _change(self, asked: Release) -> None:
        """Answer from another release: its workers are ready before the old ones stop. Raises `BadRelease`."""
        release = await asyncio.to_thread(checked, asked, self._options.signed_by)
        if release.loaded == self._release.loaded:
            self._split = release.split
            return self._tell(None)
        began = asyncio.get_running_loop().time()
        new = [await self._start(release) for _ in range(self._options.workers)]
        try:
            async with asyncio.timeout(_READY_SECONDS):
                ready = await asyncio.gather(*(worker.state for worker in new))
        except TimeoutError:
            ready = [False]
        if not all(ready):
            for worker in new:
                self._signal(worker, signal.SIGKILL)
            raise BadRelease(f"bundle {release.digest} did not get ready to answer: see its workers' messages in the log")
        old = [worker for worker in self._workers if worker.release is self._release]
        self._release, self._split = release, release.split
        for worker in old:
            worker.leaving = True
            worker.channel.tell(Word("replaced"))
            self._beside(self._ends(worker))
        await self._fill()
        self._tell(None)
        self._log.info("release changed", bundle=release.digest, seconds=round(asyncio.get_running_loop().time() - began, 1))
        return None

    def _tell(self, refused: str | None) -> None:
        """Let all workers say why the newest release is not what they answer from, or that it is."""
        self._refused = refused
        if refused is not None:
            self._log.error("release refused", reason=refused, bundle=self._release.digest)
        for worker in self._workers:
            if worker.state.done():
                worker.channel.tell(Word("release", refused, self._split if worker.release is self._release else None))

    async def _ends(self, worker: Worker) -> None:
        """Wait for a worker that was told to stop; one that does not is killed."""
        try:
            async with asyncio.timeout(_END_SECONDS + self._options.drain_seconds):
                await worker.ended.wait()
        except TimeoutError:
            self._log.error("a worker does not stop and is killed", pid=worker.process.pid)
            self._signal(worker, signal.SIGKILL)
            await worker.ended.wait()

    def _signal(self, worker: Worker, number: int) -> None:
        worker.leaving = True
        if worker.process.poll() is None:
            worker.process.send_signal(number)


def command(options: Options) -> list[str]:
    """The command line that serves these options in a process of its own."""
    return [sys.executable, "-m", "serving", *options.arguments()]


def first_release(options: Options, log: Any) -> tuple[Release, str | None]:
    """What to answer from at the start, and why that is not what the file names: `--bundle` stands in for a file that names none."""
    given = Release(str(options.bundle), str(options.users) if options.users is not None else None) if options.bundle is not None else None
    if options.follow is not None:
        try:
            return checked(read_release(options.follow), options.signed_by), None
        except BadRelease as error:
            if given is None:
                raise
            log.error("release refused", reason=str(error))
            return checked(given, options.signed_by), str(error)
    assert given is not None
    return checked(given, options.signed_by), None


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
