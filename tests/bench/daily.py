"""What `--mode daily` costs and gains against `full`: four weeks of the tiny world, in whose middle all tastes jump.

python -m tests.bench.daily [DAYS]    DAYS: between two trainings (3)

Learnt in full before each week, and gone on from within it. Each time three bundles are asked for the seven days that follow: the week's
first as it was, the one gone on from, and one learnt in full from the very same rows. Neither gate nor registry: they cost both alike.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.ingest import ingest
from components.data.validate import validate
from components.evaluation.evaluate import evaluate
from components.export.export import export
from components.export.pack import pack
from components.features.build import build
from components.features.moments import cuts_of
from components.ranking.fit import fit as fit_rankers
from components.retrieval.fit import fit as fit_sources
from components.start import Mode, leave
from serving.system import System, load_system
from tests.world.generate import write_world
from tests.world.later import later_events, moment

SYSTEM = str(Path(__file__).parent.parent / "world" / "system.py")
TOLD, WEEKS, JUMP = 8, 4, 2  # weeks of the tables, simulated weeks after them, and after how many of these tastes jump
USERS = 60
T = TypeVar("T")


@dataclass(frozen=True)
class Learnt:
    """A bundle, what a daily training goes on from, and what it cost."""

    bundle: Path
    features: Path
    start: Path
    seconds: float  # of CPU


def accepted(system: System, folder: Path) -> Path:
    """The tables with all that comes after them, as the data gate leaves them: each cut reads only what lies before it."""
    world = write_world(folder / "tables", users=USERS, weeks=TOLD)
    later = [one for week in range(WEEKS + 1) for one in later_events(TOLD + week, 1, jump=int(week >= JUMP), users=USERS, told=TOLD)]
    known = pq.read_table(world.folder / "events.parquet")
    flat = [{**one, **{f"context_{name}": value for name, value in one["context"].items()}} for one in later]
    rows = [{name: one.get(name) for name in known.column_names} | {"timestamp": datetime.fromisoformat(one["timestamp"])} for one in flat]
    (world.folder / "events.parquet").unlink()
    pq.write_table(pa.concat_tables([known, pa.Table.from_pylist(rows, schema=known.schema)]), world.folder / "events.parquet")
    ingest(system, out=folder / "ingest", data=world.folder)
    validate(system, tables=folder / "ingest", out=folder / "validate")
    return folder / "validate"


def learnt(system: System, tables: Path, day: int, mode: Mode, out: Path, start: Path | None = None) -> Learnt:
    """From the rows before the day, as the pipeline's steps do it."""

    def work() -> tuple[Path, Path]:
        features = out / "features"
        build(system, tables=tables, out=features, until=moment(day), cuts=cuts_of(SYSTEM, True, mode))
        fit_sources(system, features=features, out=out / "retrieval", fast=True, start=start)
        fit_rankers(system, features=features, retrieval=out / "retrieval", out=out / "ranking", fast=True, start=start)
        export(system, features=features, retrieval=out / "retrieval", ranking=out / "ranking", out=out / "export")
        bundle = pack(system, features=features, retrieval=out / "retrieval", export=out / "export", out=out / "pack")
        return bundle, leave(bundle.name, features, out / "retrieval", out / "ranking", out / "start")

    (bundle, weights), seconds = costing(work)
    return Learnt(bundle, out / "features", weights, seconds)


def costing(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the seconds of CPU it took here and in processes of its own."""
    before = _spent()
    return work(), _spent() - before


def _spent() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def judged(system: System, ours: Learnt, theirs: Learnt, features: Path, out: Path) -> dict[str, Any]:
    """NDCG@10 of both in the seven days after the cut, and how far ours is ahead with its error."""
    evaluate(system, ours.bundle, features, out, champion=theirs.bundle)
    found = json.loads((out / "metrics.json").read_text())["protocols"]["all"]
    of = {name: found["recommenders"][name]["ndcg@10"]["value"] for name in ("candidate", "champion")}
    return of | found["against"]["champion"]["ndcg@10"]


def main(between: int) -> None:
    """A line a training, then the means."""
    system = load_system(SYSTEM)
    gains: list[tuple[float, float]] = []  # over the week's first, under the full one
    costs: dict[str, list[float]] = {"full": [], "daily": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tables = accepted(system, folder)
        for week in range(WEEKS):
            sunday = 7 * (TOLD + week)
            first = latest = learnt(system, tables, sunday, "full", folder / f"full{sunday}")
            costs["full"].append(first.seconds)
            for day in range(sunday + between, sunday + 7, between):
                full = learnt(system, tables, day, "full", folder / f"full{day}")
                latest = learnt(system, tables, day, "daily", folder / f"daily{day}", latest.start)
                costs["full"].append(full.seconds)
                costs["daily"].append(latest.seconds)
                over = judged(system, latest, first, full.features, folder / f"over{day}")
                under = judged(system, full, latest, full.features, folder / f"under{day}")
                gains.append((over["value"], under["value"]))
                print(
                    f"week {week + 1} day {day - sunday}: NDCG@10 {over['champion']:.3f} as it was, {over['candidate']:.3f} daily "
                    f"({over['value']:+.3f} ± {over['error']:.3f}), {under['candidate']:.3f} in full ({under['value']:+.3f} ± "
                    f"{under['error']:.3f} over daily); {latest.seconds:.0f} and {full.seconds:.0f} s of CPU",
                    flush=True,
                )
    over_first, under_full = (sum(column) / len(gains) for column in zip(*gains, strict=True))
    daily, whole = (sum(costs[mode]) / len(costs[mode]) for mode in ("daily", "full"))
    print(f"daily: {over_first:+.3f} over the first of its week, {under_full:.3f} under learning in full")
    print(f"seconds of CPU a training: daily {daily:.0f}, full {whole:.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
