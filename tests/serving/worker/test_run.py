"""Starting, supervising and the HTTP server's own limits."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from serving.worker.options import Options, parse
from serving.worker.supervise import command
from tests.serving.servers import free_port, running, tiny_options, until


def test_options_survive_their_own_command_line() -> None:
    given = Options(
        Path("b"),
        "shop",
        port=81,
        workers=3,
        kernel="pure",
        users=Path("u"),
        state="redis://x",
        clock="2017-11-27T00:00:00+00:00",
    )
    assert parse(given.arguments()) == given
    assert command(given)[1:3] == ["-m", "serving"]


def test_a_clock_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        _ = replace(Options(Path("b")), clock="2017-11-27").start_day


def test_a_recommender_without_its_halves_is_refused() -> None:
    with pytest.raises(SystemExit, match="--retrieval"):
        parse(["--bundle", "b", "--role", "recommender"])
    with pytest.raises(SystemExit, match="--follow"):
        parse([])


def test_every_option_says_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "sqlite:PATH or redis://" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        parse(["--bundle", "b", "--workers", "many"])
    assert "--workers" in capsys.readouterr().err


def test_a_bundle_that_was_changed_is_not_served_and_the_file_is_named(tmp_path: Path) -> None:
    options = tiny_options(tmp_path, port=free_port())
    (options.bundle / "light.onnx").write_bytes(b"something else")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-m", "serving", *options.arguments()], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "light.onnx" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_native_kernel_is_refused_where_it_is_not_installed(tmp_path: Path) -> None:
    options = tiny_options(tmp_path, port=free_port(), kernel="native")
    without = "import sys; sys.modules['serving.native._kernel'] = None"
    run = "from serving.worker.options import parse; from serving.worker.run import run_server; sys.exit(run_server(parse(sys.argv[1:])))"
    line = [sys.executable, "-c", f"{without}; {run}", *options.arguments()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "native kernel is not installed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_supervisor_hands_the_kernel_on_and_the_metrics_name_it(tmp_path: Path) -> None:
    with running(tiny_options(tmp_path, kernel="pure", workers=2)) as server:
        text = server.ask("GET", "/metrics")[1].decode()
    assert {line.partition('kernel="')[2][:4] for line in text.splitlines() if line.startswith("shortlist_bundle_info{")} == {"pure"}


def test_a_worker_that_dies_is_started_again_and_a_silent_connection_is_closed(tmp_path: Path) -> None:
    with running(tiny_options(tmp_path, workers=2)) as server, socket.create_connection(("127.0.0.1", server.port), 30) as silent:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        until(lambda: len(children.read_text().split()) == 2, 30)
        before = set(children.read_text().split())
        assert silent.recv(10) == b""  # says nothing for five seconds and is let go
        os.kill(int(sorted(before)[0]), signal.SIGKILL)
        until(lambda: len(set(children.read_text().split()) - before) == 1, 30)
        assert server.ask("POST", "/v1/recommendations", {"user_id": "u01"})[0] == 200
