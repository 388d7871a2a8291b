"""Start and stop a server: load, warm up, listen, drain. `python -m serving --bundle DIR` runs it; so does `shortlist serve`."""

import asyncio
import gc
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.http.app import App
from serving.http.routes import Api
from serving.http.server import Server, Stop, bind, reserve, run
from serving.native import kernel
from serving.telemetry.logs import configure_logs
from serving.telemetry.metrics import check_room, keep_room, kernel_name
from serving.worker.assemble import Parts, assemble
from serving.worker.control import Channel, Word
from serving.worker.memory import keep_freed_memory, use_large_pages
from serving.worker.options import Options, online_file
from serving.worker.release import Release, write_release
from serving.worker.supervise import Supervisor, command, first_release

if TYPE_CHECKING:
    from serving.http.open_inference import GrpcServer

_END_SECONDS = 10.0  # for logs to be written and threads to end, once all requests are answered
_SWITCH_SECONDS = 0.001  # the loop waits no longer than this for the interpreter while the event writer's thread has it


def serve(
    system: str,
    bundle: Path,
    users: Path | None,
    home: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    workers: int = 1,
    drain_seconds: float = 3.0,
    follow: Path | None = None,
    signed_by: Path | None = None,
) -> None:
    """`shortlist serve`: become a server of that bundle, its states, events and exposures under `home`. Does not return.

    It follows the release file `follow`; none: `home`/serving/<system>/release.json, which is made to name this bundle. `signed_by`: a
    public key, or a folder of them; what none of them signed is not answered from, now or later.
    """
    folder = home / "serving" / Path(system).stem
    if follow is None:
        follow = folder / "release.json"
        write_release(follow, Release(str(bundle.resolve()), str(users.resolve()) if users is not None else None))
    options = Options(
        bundle, system, host=host, port=port, workers=workers, users=users, events=f"dir:{folder}", clock="auto",
        drain_seconds=drain_seconds, follow=follow, signed_by=signed_by, features=f"sqlite:{online_file(home, folder.name)}",
    )  # fmt: skip
    sys.stdout.flush()
    os.execv(sys.executable, command(options))


def run_server(options: Options) -> int:
    """Run until told to stop; the exit status."""
    supervised = options.workers > 1 or options.follow is not None
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_supervise(options) if supervised else _worker(options))
    except (ValueError, OSError, kernel.NoKernel) as error:  # a bundle, a keys file, a port: what is wrong is in the message
        configure_logs(options.log_level).error("cannot start", reason=str(error))
        return 1


async def _supervise(options: Options) -> int:
    """One process a worker on one socket, which this process holds."""
    log = configure_logs(options.log_level)
    listener = bind(options.host, options.port)
    release, refused = await asyncio.to_thread(first_release, options, log)
    reserved = reserve(options.host, options.grpc_port) if options.grpc_port else nullcontext()
    with listener, reserved, tempfile.TemporaryDirectory(prefix="shortlist-metrics-") as folder:
        return await Supervisor(options, release, listener, Path(folder), log).run(refused)


async def _worker(options: Options) -> int:
    log = configure_logs(options.log_level)
    check_room()
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH_SECONDS)
    if options.kernel != "auto":
        kernel.use(options.kernel == "native")
    parts = assemble(options, log)
    app = parts.app
    handed = options.listen_fd >= 0
    listener = socket.socket(fileno=options.listen_fd) if handed else bind(options.host, options.port)
    server, stop = Server(app, options.connections), Stop()
    channel = await Channel.of(socket.socket(fileno=options.control_fd)) if options.control_fd >= 0 else None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.begin)
    gc.collect()
    gc.freeze()
    use_large_pages()
    gc.set_threshold(50_000, 20, 100)
    rpc = await _grpc(options, app)
    app.metrics.render()  # all files of shared numbers are there then
    keep_room()
    app.ready = True
    log.info("ready", port=listener.getsockname()[1], role=options.role, bundle=parts.digest, kernel=kernel_name(), pid=os.getpid())
    beside = [asyncio.create_task(work()) for work in parts.background]
    if channel is not None:
        channel.tell(Word("ready"))
        beside.append(asyncio.create_task(_obey(channel, app, stop)))
    try:
        await run(server, listener, stop, lambda: _drains(app, channel), options.drain_seconds if channel is None else None)
        if rpc is not None:
            await rpc.stop()
    finally:
        _end_within(_END_SECONDS, log)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        _close(parts)
        log.info("stopped")
    return 0


async def _grpc(options: Options, app: App) -> "GrpcServer | None":
    """A gRPC server beside the HTTP one, where there is something to ask over it."""
    if not options.grpc_port or not isinstance(app, Api):
        return None
    from serving.http.open_inference import GrpcServer

    server = GrpcServer(app, options.host, options.grpc_port, options.control_fd >= 0)
    await server.start()
    return server


def _drains(app: App, channel: Channel | None) -> None:
    app.ready = False
    if channel is not None:
        channel.tell(Word("draining"))


async def _obey(channel: Channel, app: App, stop: Stop) -> None:
    """Do what the supervisor says; without a supervisor a worker has nothing to do."""

    def heard(word: Word) -> None:
        if word.say == "replaced":
            stop.now()
        elif word.say == "release":
            app.refuse_release(word.refused)
            if word.split is not None:
                app.divide(word.split)

    await channel.heard(heard)
    stop.now()


def _end_within(seconds: float, log: Any) -> None:
    """End the process after that time, whoever hangs: Python waits for threads, and one that asks a resolver may take minutes."""

    def end() -> None:
        log.error("ended without waiting for what hangs: a resolver, a disk or another server", seconds=seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _close(parts: Parts) -> None:
    for close in parts.closers:
        close()
