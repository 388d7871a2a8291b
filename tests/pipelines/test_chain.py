"""The loop closes: tastes jump, what is served shows it, a retraining answers it; also when everything in it is killed at every arrow."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.release.registry import open_registry
from tests.components.release.mlflow_server import MlflowServer
from tests.pipelines.chain import ASKED, Chain, judged_week, send, week_after, worth
from tests.serving.servers import until
from tests.serving.traffic import traffic

A_SECOND = 10

pytestmark = pytest.mark.slow


def test_tastes_jump_and_the_watch_learns_judges_and_promotes_while_the_server_answers(tmp_path: Path) -> None:
    began = time.monotonic()
    chain = Chain.of(tmp_path)
    usual, jumped, next_week = week_after(0, jump=0), week_after(0, jump=1), week_after(1, jump=1)
    trained = chain.run("train", "--data", str(chain.data), "--fast")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    apart = chain.copied(tmp_path / "apart")  # what is asked before the events come is no answer that should have known them
    with apart.serving() as server:
        send(server, judged_week(chain.data))
        good, bad = worth(server, usual), worth(server, jumped)
    with chain.serving() as server:
        send(server, judged_week(chain.data) + jumped)
        stale, first = worth(server, next_week), chain.champion
        with traffic(server, A_SECOND, ASKED) as sent:
            watched = chain.run(*chain.watch_words())
            assert watched.returncode == 0, watched.stdout + watched.stderr
            until(lambda: any(one.done() and one.result()[1] == chain.champion for one in list(sent)), 60)
        fresh = worth(server, next_week)
    answers = [one.result() for one in sent]
    told = [entry["what"] for entry in chain.journal]
    print(f"of what was then taken, listed: {good:.3f} before, {bad:.3f} when tastes jumped, {stale:.3f} by the old bundle a week on,")
    print(
        f"{fresh:.3f} by the new one; {len(answers)} requests meanwhile; {time.monotonic() - began:.0f} s; {chain.journal[0]['sentence']}"
    )
    assert told == ["verdict", "begun", "trained", "settled"]  # drift in the first window, one retraining
    assert chain.journal[-1]["promoted"]
    assert chain.champion != first
    assert {status for status, *_ in answers} == {200}  # none lost
    assert {digest for _, digest, _ in answers} == {first, chain.champion}
    verdict = json.loads((chain.home / "watch" / "world" / "latest" / "verdict.json").read_text())
    assert verdict["skew"]["answers"] > 0
    assert verdict["skew"]["columns"] == {}  # what the server knew is what learning makes of the same events
    (learnt,) = (json.loads(file.read_text()) for file in chain.home.glob("runs/*/served/out/served.json"))  # the retraining alone had any
    assert learnt["events_in_log"] - learnt["known_before"] == len(jumped)  # the week that the tables hold already comes in nothing twice
    assert len(jumped) < learnt["appended"] <= len(jumped) + learnt["shown"]  # what was done, and what known users saw
    assert bad < 0.6 * good
    assert fresh > stale  # what was learnt is worth more than fresh histories under the old bundle
    assert fresh > 0.8 * good  # recovered


@contextmanager
def started(server: MlflowServer) -> Iterator[MlflowServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_the_same_chain_with_everything_killed_at_each_arrow_ends_the_same(tmp_path: Path) -> None:
    """One home is watched without interruption, its copy with a kill -9 at every arrow: the same bundle, one retraining, none lost."""
    with started(MlflowServer(tmp_path / "mlflow")) as registry:
        chain = Chain.of(tmp_path / "often", registry.address)
        jumped = week_after(0, jump=1)
        trained = chain.run("train", "--data", str(chain.data), "--fast")
        assert trained.returncode == 0, trained.stdout + trained.stderr
        with chain.serving() as server:
            send(server, jumped[: len(jumped) // 2])
            server.kill()  # served | learnt from: what was acknowledged is kept
        with chain.serving() as server:
            send(server, jumped)
            first, copied = chain.champion, MlflowServer(tmp_path / "copied")
            shutil.copytree(registry.folder, copied.folder)
            never = chain.copied(tmp_path / "never", copied.address)
            _watch_and_kill(chain, registry)
            server.kill()  # promoted | answering
        with chain.serving() as server:
            status, told = server.ask("POST", "/v1/recommendations", {"user_id": "u001"})
            assert (status, told["bundle"]) == (200, chain.champion)
        with open_registry(None, registry.address) as client:
            versions = client.search_model_versions("name = 'shortlist-world'")
            crowned = client.get_model_version_by_alias("shortlist-world", "champion").tags["bundle"]
    with started(copied):
        undisturbed = never.run(*never.watch_words())
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    assert first != chain.champion == never.champion == f"sha256:{crowned}"
    assert len(versions) == 2  # no retraining twice
    for one in (chain, never):
        assert [entry["what"] for entry in one.journal if entry["what"] != "verdict"] == ["begun", "trained", "settled"]
        assert one.journal[-1]["promoted"]


def _watch_and_kill(chain: Chain, registry: MlflowServer) -> None:
    """Watch again and again; each time something is killed a step further on. What is left is done by the last watch."""
    steps: list[tuple[str, Callable[[int], None]]] = [
        ("watch: verdict", _kill),  # the watcher, when the verdict stands
        ("watch: begun", _kill),
        ("step=retrieval state=working", _kill_trainer),
        ("step=ranking state=working", _kill),  # the watcher alone: its trainer goes on, and the next watch has one beside it
        ("step=champion state=started", lambda _: registry.kill()),
        ("step=register state=started", _kill_trainer),
        ("step=register state=done", lambda _: registry.kill()),  # trained | promoted
        ("watch: trained", _kill),
    ]
    for line, kill in steps:
        registry.start()
        process = chain.begin(*chain.watch_words())
        _when(chain, line, process)
        kill(process.pid)
        process.wait(600)
    registry.start()
    ended = chain.run(*chain.watch_words())
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _when(chain: Chain, line: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the journal or a run's log has the line, or the process has ended."""
    word = line.removeprefix("watch: ")
    seen = _lines(chain, line)

    def there() -> bool:
        written = any(entry["what"] == word for entry in chain.journal) if word != line else _lines(chain, line) > seen
        return written or process.poll() is not None

    until(there, 900)


def _lines(chain: Chain, line: str) -> int:
    return sum(file.read_text().count(line) for file in (chain.home / "runs").glob("*/log.txt"))


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _kill_trainer(watcher: int) -> None:
    """Every process below the watcher, which is left alone."""
    below = [watcher]
    for pid in below:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        below += [int(child) for task in tasks for child in task.read_text().split()]
    for pid in below[1:]:
        _kill(pid)
