"""The whole loop as its users drive it: the command `shortlist`, a server process, requests and events over HTTP."""

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.release.releases import chosen
from tests.serving.servers import Running, free_port, until
from tests.world.generate import START, user_name, write_world
from tests.world.later import later_events

ROOT = Path(__file__).resolve().parent.parent.parent
SYSTEM = str(ROOT / "tests" / "pipelines" / "small_system.py")
USERS, WEEKS = 100, 12  # of the tables, in the world's own time
ASKED = [user_name(number) for number in range(USERS)]
PACE = 3  # times as fast as that everything happens here: half a week then shows new tastes
END = START + timedelta(weeks=WEEKS)  # of the tables, in the world's own time,
LAST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=7)  # and here: a week ago


@dataclass
class Chain:
    """One home, the tables it learns from, and where its registry is (empty: a file under the home)."""

    home: Path
    data: Path
    registry: str = ""
    port: int = field(default_factory=free_port)

    @classmethod
    def of(cls, folder: Path, registry: str = "") -> "Chain":
        (folder / "home").mkdir(parents=True)
        return cls(folder / "home", tables(folder / "tables"), registry)

    def copied(self, folder: Path, registry: str = "") -> "Chain":
        """All of it as it is now, to go another way."""
        shutil.copytree(self.home, folder)
        return Chain(folder, self.data, registry)

    def command(self, *words: str) -> list[str]:
        registry = ["--registry", self.registry] if self.registry else []
        return [sys.executable, "-m", "pipelines", words[0], SYSTEM, *words[1:], "--home", str(self.home), *registry]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`shortlist WORDS` to its end."""
        return subprocess.run(self.command(*words), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)

    def together(self, *lines: Sequence[str]) -> "list[subprocess.CompletedProcess[str]]":
        """Several `shortlist WORDS` at once, to their ends."""
        with ThreadPoolExecutor(len(lines)) as pool:
            return list(pool.map(lambda words: self.run(*words), lines))

    def begin(self, *words: str) -> "subprocess.Popen[bytes]":
        """`shortlist WORDS`, not waited for."""
        with (self.home / f"{words[0]}.log").open("ab") as log:
            return subprocess.Popen(self.command(*words), cwd=ROOT, env=environment(), stdout=log, stderr=log)

    def watch_words(self) -> list[str]:
        return ["watch", "--data", str(self.data), "--fast", "--once", "--promote", "passed"]

    @contextmanager
    def serving(self) -> Iterator[Running]:
        """`shortlist serve`, ready."""
        server = Running(self.begin("serve", "--port", str(self.port), "--drain-seconds", "0.5"), self.port)
        try:
            until(lambda: self._ready(server), 180)
            yield server
        finally:
            if server.process.poll() is None:
                server.process.terminate()
            server.process.wait(20)

    def _ready(self, server: Running) -> bool:
        assert server.process.poll() is None, (self.home / "serve.log").read_text()[-2000:]
        try:
            return server.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    @property
    def champion(self) -> str:
        """Digest of what answers under the home."""
        return f"sha256:{chosen('world', self.home)}"

    @property
    def journal(self) -> list[dict[str, Any]]:
        file = self.home / "watch" / "world" / "journal.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def here(when: datetime) -> datetime:
    """A moment of the world in our time: its tables end a week ago, so that a server, which knows no time but now, answers in it."""
    return LAST + (when - END) / PACE


def tables(folder: Path) -> Path:
    """The world's tables, in our time."""
    for file in write_world(folder, users=USERS, weeks=WEEKS).folder.glob("*.parquet"):
        table = pq.read_table(file)
        for at, column in enumerate(table.schema):
            if pa.types.is_timestamp(column.type):
                moved = [None if when is None else here(when) for when in table[column.name].to_pylist()]
                table = table.set_column(at, column, pa.array(moved, column.type))
        pq.write_table(table, file)
    return folder


def week_after(number: int, jump: int) -> list[dict[str, Any]]:
    """Purchases of the week `number` after the tables (0: the first)."""
    events = later_events(WEEKS + PACE * number, PACE, jump=jump, users=USERS, told=WEEKS)
    return [event | {"timestamp": here(datetime.fromisoformat(event["timestamp"])).isoformat()} for event in events]


def judged_week(data: Path) -> list[dict[str, Any]]:
    """The tables' own events of the week after the champion's cut: a server that answered then was told them, too."""
    table = pq.read_table(data / "events.parquet", filters=[("timestamp", ">=", LAST - timedelta(days=7))])
    events = []
    for row in table.sort_by("timestamp").to_pylist():
        said = {name: value for name, value in row.items() if value is not None}
        context = {name: said.pop(f"context_{name}") for name in ("store", "region") if f"context_{name}" in said}
        events.append(said | {"timestamp": said["timestamp"].isoformat(), "context": context})
    return events


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def send(server: Running, events: Sequence[Mapping[str, Any]]) -> None:
    """Post them; every one is taken."""
    for begin in range(0, len(events), 200):
        status, told = server.ask("POST", "/v1/events", {"events": list(events[begin : begin + 200])})
        assert (status, told["refused"]) == (200, []), told


def worth(server: Running, events: Sequence[Mapping[str, Any]], k: int = 10) -> float:
    """How much of what each user then took the server lists for them now: mean share of the k, or of as many as they took."""
    took: dict[str, set[str]] = defaultdict(set)
    for event in events:
        took[event["user_id"]].add(event["item_id"])
    shares = []
    for user, items in took.items():
        status, told = server.ask("POST", "/v1/recommendations", {"user_id": user, "k": k})
        assert status == 200, told
        shares.append(len(items & {item["item_id"] for item in told["items"]}) / min(k, len(items)))
    return sum(shares) / len(shares)
