"""The alias moved in MLflow and moved back: a running server answers from the bundle it names, and no request is lost meanwhile."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from components.release.registry import open_registry
from components.release.releases import release_file
from serving.worker.options import Options
from tests.components.release.made import Made
from tests.serving.servers import NOON, running, until
from tests.serving.tiny_bundle import SYSTEM_FILE
from tests.serving.traffic import Answer, traffic

A_SECOND = 50
USERS = [f"u{number:02}" for number in range(12)]


@contextmanager
def watching(home: Path) -> Iterator[None]:
    """`shortlist sync --watch`, in a process of its own."""
    line = [sys.executable, "-m", "pipelines", "sync", str(SYSTEM_FILE), "--watch", "--every", "0.5", "--home", str(home)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("version 1 of shortlist-tiny answers")
        try:
            yield
        finally:
            process.terminate()
            process.communicate()


def followed(sent: list["Future[Answer]"], digest: str, moved: float) -> list[float]:
    """When answers came from the bundle after the alias was moved: the same bundle may have answered before, and a moment ago."""
    told = (future.result() for future in list(sent) if future.done())
    return [when for _, answered, when in told if answered == f"sha256:{digest}" and when > moved]


def test_the_served_digest_follows_the_alias_and_back_and_no_request_fails(
    two: tuple[Made, Made], home: Path, tmp_path: Path, record_property
) -> None:
    for made in two:
        made.register(tmp_path / "out", home)
    options = Options(
        system=str(SYSTEM_FILE), follow=release_file("tiny", home), events=f"dir:{tmp_path / 'events'}", clock=NOON, log_level="error"
    )
    took: list[float] = []
    with running(options) as server, watching(home), traffic(server, A_SECOND, USERS) as sent, open_registry(home, "") as client:
        for version, made in (("2", two[1]), ("1", two[0])):
            moved = time.monotonic()
            client.set_registered_model_alias("shortlist-tiny", "champion", version)
            until(lambda made=made, moved=moved: followed(sent, made.digest, moved), 60)
            took.append(min(followed(sent, made.digest, moved)) - moved)
    answers = [future.result() for future in sent]
    assert len(answers) >= A_SECOND
    assert [status for status, *_ in answers if status != 200] == []
    record_property("seconds until the served digest followed", took)
    print(f"{len(answers)} requests, 0 failed; followed after {took[0]:.1f} and {took[1]:.1f} s")
    assert max(took) < 10
