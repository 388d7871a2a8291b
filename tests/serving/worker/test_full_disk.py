"""A disk that fills up ends no worker: what workers share by maps of files has its room from the start."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from serving.http.counters import Counters
from serving.new_items.safety import Safety, Said
from tests.serving.asking import children
from tests.serving.servers import running, tiny_options, until

ROOM = "size=24m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", ROOM, "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("this user may mount no disk that could be filled")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(disk).free == 0


def has_room(disk: Path, pid: int) -> bool:
    """Whether the worker's shared numbers have all of their room."""
    files = [file.stat() for file in disk.glob(f"*/*_{pid}.db")]
    return len(files) > 3 and all(512 * one.st_blocks >= one.st_size for one in files)


def test_workers_answer_and_count_on_while_the_disk_of_their_shared_numbers_is_full(tmp_path: Path, disk: Path) -> None:
    with running(tiny_options(tmp_path, workers=2), environment={"TMPDIR": str(disk)}) as server:
        workers = children(server)
        until(lambda: all(has_room(disk, pid) for pid in workers), 60)
        fill(disk)
        for number in range(100):
            assert server.ask("POST", "/v1/recommendations", {"user_id": f"u{number % 40:02}"})[0] == 200
            assert server.ask("POST", "/v1/events", b"{")[0] == 400
        assert b"shortlist_requests_total{" in server.ask("GET", "/metrics")[1]
        assert children(server) == workers


def test_a_worker_that_finds_the_disk_full_says_so_and_the_others_answer_on(
    tmp_path: Path, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tiny_options(tmp_path, workers=2), environment={"TMPDIR": str(disk)}) as server:
        until(lambda: len(children(server)) == 2 and all(has_room(disk, pid) for pid in children(server)), 60)
        fill(disk)
        os.kill(min(children(server)), signal.SIGKILL)
        said: list[str] = []
        until(lambda: said.append("".join(capfd.readouterr())) or "no room for this worker's metrics" in "".join(said), 60)
        assert "or set TMPDIR" in "".join(said)
        assert server.ask("POST", "/v1/recommendations", {"user_id": "u01"})[0] == 200


def test_rates_and_the_bell_of_safety_messages_lie_on_the_disk_whole(disk: Path) -> None:
    Counters(disk / "rates")
    safety = Safety(disk)
    safety.say([Said("i1", "recall", True, 1.0)])
    for name in ("rates", "safety.bell"):
        found = (disk / name).stat()
        assert 512 * found.st_blocks >= found.st_size > 0
    fill(disk)
    safety._bell.ring()
    assert safety.is_news()
