"""A shop that grows: the same items, any number of users. What the steps of learning that are ours cost on it, in a process of its own.

python -m tests.world.growth FOLDER USERS...     # ascending; prints one JSON object: by users, of each step, CPU seconds and MB
"""

import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.data.read import arrow_schema
from feature_repo.schema import TABLES
from serving.retrieval.arrivals import arrivals
from serving.retrieval.sessions import sessions
from serving.system import System, load_system

UNTIL = datetime(2024, 3, 25, tzinfo=UTC)
DAYS, ITEMS, EVENTS_A_USER, PLACES = 70, 600, 60, 5
CUTS = 1
ASKED = 50  # users whose lists the fit of sources asks for: of more than thousands it asks a sample anyway


def write_tables(folder: Path, users: int, seed: int = 0) -> int:
    """The four tables; how many events. Items by a power law, the week after `UNTIL` there to judge by."""
    random = np.random.default_rng(seed)
    count = users * EVENTS_A_USER
    user, item = random.integers(users, size=count), (ITEMS * random.random(count) ** 2).astype(int)
    moment = np.sort(random.random(count)) * (DAYS + 7)
    names, ids = np.char.add("u", np.arange(users).astype(str)), np.char.add("i", np.arange(ITEMS).astype(str))
    begin = UNTIL - timedelta(days=DAYS)
    when = np.datetime64(begin.replace(tzinfo=None), "us") + (moment * 86_400e6).astype("timedelta64[us]")
    place = np.char.add("p", (np.arange(users) % PLACES).astype(str))
    _write(folder, "events", count, event_id=np.char.add("e", np.arange(count).astype(str)), event_type=np.full(count, "purchase"),
           user_id=names[user], item_id=ids[item], timestamp=when, session_id=np.char.add(names[user], moment.astype(int).astype(str)),
           value=np.ones(count), price=1.0 + item % 7, context_store=place[user], context_region=place[user])  # fmt: skip
    shelf = np.array([f"d{n % 3} > c{n % 30} > t{n % 90}" for n in range(ITEMS)])
    _write(folder, "items", ITEMS, item_id=ids, category=shelf, brand=np.char.add("b", (np.arange(ITEMS) % 50).astype(str)), title=ids)
    _write(folder, "users", users, user_id=names, region=place, consent=np.full(users, "full"))
    _write(folder, "context", 0)
    return count


def _write(folder: Path, name: str, count: int, **columns: np.ndarray) -> None:
    schema = arrow_schema(TABLES[name])
    made = [
        pa.array(columns[field.name]).cast(pa.timestamp("us")).cast(field.type) if field.name == "timestamp"
        else pa.array(columns[field.name]).cast(field.type) if field.name in columns
        else pa.nulls(count, field.type)
        for field in schema
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_arrays(made, schema=schema), folder / f"{name}.parquet")


def system_of() -> System:
    """The small world's system with every source that counts, and fusion by learnt weights."""
    world = load_system("tests/world/system.py")
    counted = tuple(replace(spec, share=0.2) for spec in world.sources if spec.kind != "two_tower")
    return replace(world, sources=(*counted, arrivals(share=0.1), sessions(share=0.1)), fusion="learnt", pool_size=200)


def judge(system: System, features: Path) -> None:
    """What the gate reads, of lists that nobody has to be asked for."""
    from components.evaluation.compare import CANDIDATE, POPULARITY, Known, compare, popular, sliced, variety
    from components.evaluation.evaluate import targets_of
    from components.evaluation.impostors import impostors, judged
    from components.evaluation.next_item import TOGETHER, had_together
    from components.evaluation.slices import baskets_of
    from components.evaluation.truth import read_truth
    from components.evaluation.visible import barred_items

    truth = read_truth(features)
    barred, known, length = barred_items(system, truth.catalogue), Known.of(truth.known, truth.catalogue), min(1000, ITEMS)
    ours = had_together(truth, length, barred, truth.nothing)
    lists = {CANDIDATE: ours, TOGETHER: ours, POPULARITY: popular(known, length, truth.out, barred)}
    for target in targets_of(truth, barred).values():
        compare(lists, target)
        sliced(lists, target, baskets_of(truth.states)[truth.users], known, truth.states.cut_day)
        judged(ours, impostors(truth, known, barred, new_only=True), target)
    variety(ours, truth.catalogue, known, 10)


def costs(folder: Path, users: int) -> dict[str, dict[str, float]]:
    """By step CPU seconds, on all cores, and MB it held at most, less what DuckDB does."""
    from components.features.build import build
    from components.retrieval.fit import fit

    write_tables(folder / "tables", users)
    system, told = system_of(), {}
    tables, features, out = folder / "tables", folder / "features", folder / "retrieval"
    steps: dict[str, Callable[[], None]] = {
        "features": lambda: build(system, tables, features, UNTIL, CUTS),
        "sources": lambda: fit(system, features, out),
        "judging": lambda: judge(system, features),
    }
    for name, work in steps.items():
        began = time.process_time()
        work()
        told[name] = {"cpu_s": time.process_time() - began}
        tracemalloc.start()  # in a second turn: it costs as much as the work
        work()
        told[name]["peak_mb"] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    return told


def main(folder: Path, sizes: list[int]) -> dict[int, dict[str, dict[str, float]]]:
    """The costs at each size; before them once over a few users, so that what is imported and made first is nobody's."""
    from components.retrieval import report, weights

    report.MOST_USERS = weights.USERS = ASKED
    costs(folder / "few", 40)
    return {users: costs(folder / str(users), users) for users in sizes}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])))
