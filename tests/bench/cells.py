"""Retrieval from more items than one looks at: cells of a made catalogue, their recall of the exact answer, their cost and bytes.

python -m tests.bench.cells --items 10000000      # some 8 GB of memory; prints one JSON object

Vectors lie in clusters as those of `tests.bench.synthetic`; a user's is the mean of what they had, half popular, half of clusters liked.
Recall is measured with other users than the cells' probes were chosen with. Shapes: I items, D dimensions, Q users.
"""

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray

from components.retrieval import cells as made
from serving.native import kernel
from serving.retrieval.cells import Cells, stretch
from serving.retrieval.int8_scan import products
from serving.retrieval.top_k import select
from serving.retrieval.two_tower import TowerTable
from tests.bench.synthetic import CLUSTERS, DIMENSIONS, FAVOURITES, TRIALS

BLOCK = 500_000  # items made at once
HISTORY, DEPTH = 120, 1000  # items of a user's history; items asked for
NOISE = 0.6  # of an item around the centre of its cluster
Floats = NDArray[np.float32]


def table_of(random: np.random.Generator, items: int) -> tuple[TowerTable, NDArray[np.int64]]:
    """Items as a tower leaves them, row r about as popular as 1 / (r + 1), and the cluster of each (I,)."""
    centres = random.standard_normal((CLUSTERS, DIMENSIONS), np.float32)
    cluster = random.integers(CLUSTERS, size=items)
    vectors, scales = np.empty((items, DIMENSIONS), np.int8), np.empty(items, np.float32)
    for begin in range(0, items, BLOCK):
        own = centres[cluster[begin : begin + BLOCK]]
        own = own + NOISE * random.standard_normal(own.shape, np.float32)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        scale = np.abs(own).max(axis=1) / 127
        vectors[begin : begin + BLOCK], scales[begin : begin + BLOCK] = np.rint(own / scale[:, None]), scale
    prior = np.log1p(1000.0 / np.arange(1, items + 1)).astype(np.float32)
    return TowerTable(vectors, scales, prior, np.empty((0, DIMENSIONS), np.float16), temperature=0.1), cluster


def users_of(random: np.random.Generator, table: TowerTable, cluster: NDArray[np.int64], count: int) -> Floats:
    """(Q, D) of length one, over the temperature."""
    found, items = [], len(cluster)
    for _ in range(count):
        popular = np.minimum(np.exp(random.random(HISTORY // 2) * np.log(items)).astype(np.int64), items) - 1
        liked = np.flatnonzero(np.isin(cluster[:BLOCK], random.choice(CLUSTERS, FAVOURITES)))
        rows = np.concatenate((popular, random.choice(liked, HISTORY // 2)))
        mean = (table.vectors[rows].astype(np.float32) * table.scales[rows, None]).mean(axis=0)
        found.append(mean / np.linalg.norm(mean))
    return np.array(found, np.float32) / np.float32(table.temperature)


def search(cells: Cells, vector: Floats) -> NDArray[np.int32]:
    """The best rows, as `serving.retrieval.two_tower.TwoTower` finds them in the nearest cells."""
    begins, ends = cells.near(vector)
    rows = stretch(cells.rows, begins, ends)
    scores = kernel.spans(cells.vectors, vector, cells.scales, cells.prior, begins, ends)
    if scores is None:
        parts = (stretch(values, begins, ends) for values in (cells.vectors, cells.scales, cells.prior))
        scores = products(next(parts), vector, *parts)
    return rows[select(scores, DEPTH)]


def measure(items: int, users: int, seed: int = 0) -> dict[str, float]:
    """Recall@1000 of the exact answer over int8 vectors, CPU milliseconds a search and an exact one, bytes, seconds of CPU to build."""
    random = np.random.default_rng(seed)
    table, cluster = table_of(random, items)
    trials, asked = (users_of(random, table, cluster, count) for count in (TRIALS, users))
    begin = time.process_time()
    cells = made.build(table, trials, DEPTH, seed)
    built = time.process_time() - begin
    shares, near_ms, exact_ms = [], [], []
    for vector in asked:
        begin = time.process_time()
        truth = select(products(table.vectors, vector, table.scales, table.prior), DEPTH)
        exact_ms.append((time.process_time() - begin) * 1e3)
        search(cells, vector)  # once for the caches: what a busy server has warm
        begin = time.process_time()
        found = search(cells, vector)
        near_ms.append((time.process_time() - begin) * 1e3)
        shares.append(float(np.isin(truth, found).mean()))
    return {
        "items": items, "users": users, "cells": len(cells.centroids), "probes": cells.probes,
        "recall": round(float(np.mean(shares)), 4), "recall_error": round(float(np.std(shares, ddof=1) / np.sqrt(users)), 4),
        "least_recall": round(min(shares), 4),
        "search_cpu_ms": round(float(np.median(near_ms)), 3), "exact_cpu_ms": round(float(np.median(exact_ms)), 3),
        "bytes_an_item": round(sum(getattr(cells, name).nbytes for name in ("rows", "vectors", "scales", "prior", "centroids")) / items, 2),
        "build_cpu_s": round(built, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=100)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.items, asked.users)))


if __name__ == "__main__":
    main()
