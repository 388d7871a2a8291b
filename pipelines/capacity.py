"""From what one bundle costs on this machine to machines: shards, replicas, regions and money for any number of users, items and requests.

shortlist capacity video --users 2e9 --items 8e8 --qps 100000 --out docs/scale.md

Measured are CPU, bytes and memory of the bundle at hand; what else a plan takes is assumed, stands in `Assumed`, and is told beside it.
"""

import math
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from serving.query import Request
from serving.state.user_state import StateTable
from serving.system import System

ASKED, ROUNDS = 60, 2  # users whose lists are timed, after a round that warms what a busy server has warm
GIB = 2**30


@dataclass(frozen=True)
class BundleCost:
    """What a bundle costs here."""

    items: int  # of the bundle
    bytes_an_item: float  # of catalogue, halves and sources, over its items
    bytes_a_user: float  # of a packed state, the mean
    retrieval_ms: float  # CPU of a request's sources, the mean
    ranking_ms: float  # CPU of the rest of a request: user's side, rankers, rules
    process_bytes: int  # resident in a process with the bundle loaded and asked


@dataclass(frozen=True)
class Assumed:
    """What no measurement here tells."""

    cores: int = 32  # of a machine
    memory_gib: int = 128  # of a machine
    usable: float = 0.6  # of its memory for data
    busy: float = 0.5  # of its cores at the stated load: the rest is for peaks and bursts
    regions: int = 3  # any one may be lost: the others carry all requests
    copies: int = 2  # of every state and shard in a region
    state_overhead: float = 2.0  # of the online store, over the packed value: keys, allocator, events kept beside it
    transport_ms: float = 0.6  # CPU of a request for HTTP, split mode's frames and the exposure log
    shard_ms: float = 0.1  # CPU a shard asked, for its frame and merging its list
    cells_ms: float = (
        0.24  # CPU of a search by cells among `cells_items`: `python -m tests.bench.cells --items 300000` on two cores of an EPYC
    )
    cells_items: int = 300_000
    dollars_a_core_hour: float = 0.03
    dollars_a_gib_hour: float = 0.004


@dataclass(frozen=True)
class Fleet:
    """Machines for one load."""

    qps: float
    shards: int  # of the catalogue, all of which a request asks
    retrieval: int  # machines for them, all regions
    ranking: int
    states: int
    cpu_ms: float  # a request, all machines together
    dollars_a_month: float

    @property
    def machines(self) -> int:
        return self.retrieval + self.ranking + self.states


def measure(system: System, bundle: Path, users: Path) -> BundleCost:
    """A short measurement of a bundle folder, with some of the states it was learnt with."""
    from components.evaluation.batch import open_recommender

    recommender, states = open_recommender(system, bundle), StateTable.load(users)
    some = [states[at] for at in np.unique(np.linspace(0, len(states) - 1, min(ASKED, len(states))).astype(int)).tolist()]
    spent: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        for state in some:
            query = recommender.query(Request(state.user_id, system.answer_size, states.cut_day), state)
            begin = time.process_time()
            side = recommender.user_side(query)
            sided = time.process_time()
            pool = recommender.retrieve(query, side)
            found = time.process_time()
            recommender.arrange(query, recommender.scoring.order(pool, recommender.scoring.rank(query, side, pool)))
            if number:
                spent.append((found - sided, time.process_time() - found + sided - begin))
    retrieval, ranking = (float(value) * 1e3 for value in np.mean(spent, axis=0))
    files = [path for part in ("item_table", "halves", "sources") for path in (bundle / part).rglob("*") if path.is_file()]
    of_items = sum(path.stat().st_size for path in files)
    count = len(recommender.catalogue)
    packed = float(np.mean([len(state.pack()) for state in some]))
    return BundleCost(count, of_items / count, packed, retrieval, ranking, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def plan(measured: BundleCost, assumed: Assumed, users: float, items: float, qps: float) -> Fleet:
    """Machines, rounded up part by part.

    A shard holds as many items as its memory does. Every shard makes all of a request's sources, as measured, and searches its cells, which
    costs as the square root of its items: cells and what is looked into both grow so.
    """
    memory = assumed.memory_gib * GIB * assumed.usable
    shards = max(1, math.ceil(items * measured.bytes_an_item / memory))
    held = items / shards
    search_ms = assumed.cells_ms * math.sqrt(held / assumed.cells_items) if held > assumed.cells_items else 0.0
    shard_ms = measured.retrieval_ms + search_ms + assumed.shard_ms
    ranking_ms = measured.ranking_ms + assumed.transport_ms
    a_region = qps / max(assumed.regions - 1, 1)  # when one is lost

    def machines(ms: float) -> int:
        return max(assumed.copies, math.ceil(a_region * ms / 1e3 / assumed.busy / assumed.cores))

    states = math.ceil(users * measured.bytes_a_user * assumed.state_overhead * assumed.copies / memory)
    retrieval, ranking, stored = (assumed.regions * count for count in (shards * machines(shard_ms), machines(ranking_ms), states))
    hour = assumed.cores * assumed.dollars_a_core_hour + assumed.memory_gib * assumed.dollars_a_gib_hour
    dollars = (retrieval + ranking + stored) * hour * 730
    return Fleet(qps, shards, retrieval, ranking, stored, ranking_ms + shards * shard_ms, dollars)


def page(system: str, measured: BundleCost, assumed: Assumed, users: float, items: float, qps: float) -> str:
    """docs/scale.md: the plans of a load and its fivefold, and every number they were made of."""
    plans = [plan(measured, assumed, users, items, times * qps) for times in (1, 5)]
    rows = [
        ("requests a second", [f"{one.qps:,.0f}" for one in plans]),
        ("shards of the catalogue", [f"{one.shards:,}" for one in plans]),
        ("CPU a request, ms, all machines", [f"{one.cpu_ms:.2f}" for one in plans]),
        *((f"machines: {name}", [f"{getattr(one, name):,}" for one in plans]) for name in ("retrieval", "ranking", "states")),
        ("replicas of a shard, a region", [f"{one.retrieval // one.shards // assumed.regions:,}" for one in plans]),
        ("machines in all", [f"{one.machines:,}" for one in plans]),
        ("regions", [str(assumed.regions)] * len(plans)),
        ("dollars a month", [f"{one.dollars_a_month:,.0f}" for one in plans]),
    ]
    numbers: dict[str, BundleCost | Assumed] = {"measured here": measured, "assumed": assumed}
    return "\n".join(
        [
            f"# {system} at {users:,.0f} users and {items:,.0f} items",
            "",
            f"Made by `shortlist capacity {system} --users {users:g} --items {items:g} --qps {qps:g}`: arithmetic over what a bundle costs",
            "on one machine and what is assumed of machines (`plan` in `pipelines/capacity.py`). Nothing of this size was run.",
            "",
            "| | the load | five times the requests |",
            "|---|---|---|",
            *(f"| {name} | {' | '.join(values)} |" for name, values in rows),
            "",
            "| number | value | where it is from |",
            "|---|---|---|",
            *(
                f"| {one.name.replace('_', ' ')} | {getattr(of, one.name):,.4g} | {origin} |"
                for origin, of in numbers.items()
                for one in fields(of)
            ),
            "",
            "A search by cells (`cells ms`) was measured by `python -m tests.bench.cells`; that it grows as the root of a shard's items is",
            "assumed. Left out: training, storage of events and exposures, traffic between regions, the registry and monitoring.",
            "",
        ]
    )
