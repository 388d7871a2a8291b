"""Start and stop a server: load, warm up, listen, drain. `python -m serving --bundle DIR` runs it; so does `shortlist serve`."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from serving.http.app import App
from serving.http.server import bind, run
from serving.native import kernel
from serving.telemetry.logs import configure_logs
from serving.telemetry.metrics import kernel_name
from serving.worker.assemble import Parts, assemble
from serving.worker.memory import keep_freed_memory, use_large_pages
from serving.worker.options import Options

Behind = Callable[[Any, Options], Coroutine[Any, Any, None]]
_DEATHS, _WITHIN_SECONDS = 3, 60.0  # of each worker, before the supervisor gives up
_SWITCH_SECONDS = 0.001  # the loop waits no longer than this for the interpreter while the event writer's thread has it


def serve(
    system: str, bundle: Path, users: Path | None, home: Path, *, host: str = "127.0.0.1", port: int = 8080, workers: int = 1
) -> None:
    """`shortlist serve`: become a server of that bundle, its states, events and exposures under `home`. Does not return."""
    folder = home / "serving" / Path(system).stem
    options = Options(bundle, system, host=host, port=port, workers=workers, users=users, events=f"dir:{folder}", clock="auto")
    sys.stdout.flush()
    os.execv(sys.executable, command(options))


def run_server(options: Options, behind: Behind | None = None) -> int:
    """Run until told to stop; the exit status. `behind`: what joins the door after it is open (KServe's application)."""
    if options.workers > 1:
        return _supervise(options)
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH_SECONDS)
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_worker(options, behind))
    except (ValueError, OSError, kernel.NoKernel) as error:  # a bundle, a keys file, a port: what is wrong is in the message
        configure_logs(options.log_level).error("cannot start", reason=str(error))
        return 1
    return 0


def command(options: Options) -> list[str]:
    """The command line that serves these options in a process of its own."""
    return [sys.executable, "-m", "serving", *options.arguments()]


async def _worker(options: Options, behind: Behind | None) -> None:
    log = configure_logs(options.log_level)
    if options.kernel != "auto":
        kernel.use(options.kernel == "native")
    parts = assemble(options, log)
    app: App = parts.app
    listener = bind(options.host, options.port, options.share_port)
    gc.collect()
    gc.freeze()
    use_large_pages()
    gc.set_threshold(50_000, 20, 100)
    app.ready = True
    log.info("ready", port=listener.getsockname()[1], role=options.role, bundle=parts.digest, kernel=kernel_name(), pid=os.getpid())
    beside = [asyncio.create_task(work()) for work in parts.background]
    if behind is not None:
        beside.append(asyncio.create_task(behind(app, options)))
    try:
        await run(app, listener, lambda: setattr(app, "ready", False), options.drain_seconds)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        _close(parts)
        log.info("stopped")


def _close(parts: Parts) -> None:
    for close in parts.closers:
        close()


def _supervise(options: Options) -> int:
    """One process a worker on a shared port; one that dies is started again; SIGTERM and SIGINT go to all."""
    from serving.bundle.bundle import verify

    verify(options.bundle)
    with tempfile.TemporaryDirectory(prefix="shortlist-metrics-") as folder:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
        line = command(replace(options, workers=1, share_port=True, verify=False))
        return _Supervisor(line, environment, options.workers).run()


class _Supervisor:
    def __init__(self, line: list[str], environment: dict[str, str], workers: int) -> None:
        self._line, self._environment, self._stopping = line, environment, False
        self._children: list[subprocess.Popen[bytes]] = [self._start() for _ in range(workers)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._line, env=self._environment)

    def _stop(self, *_: Any) -> None:
        self._stopping = True
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    def run(self) -> int:
        """Wait for the workers; the worst exit status. One that dies is started again, unless workers die faster than they can live."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        deaths: deque[float] = deque(maxlen=_DEATHS * len(self._children))
        while not self._stopping:
            pid, status = os.wait()
            place = next((at for at, child in enumerate(self._children) if child.pid == pid), None)
            if place is None or self._stopping:
                continue
            self._children[place].returncode = os.waitstatus_to_exitcode(status)
            deaths.append(monotonic())
            if len(deaths) == deaths.maxlen and deaths[-1] - deaths[0] < _WITHIN_SECONDS:
                self._stop()
                return 1
            self._children[place] = self._start()
        return max((abs(child.wait()) for child in self._children), default=0)
