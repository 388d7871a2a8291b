"""Asking the recommender for many users at once: the very code that serves, over a table of states, in a process a core.

`ranked` lists are the rankers' order under the hard rules alone (stock, recalls): what `evaluate` judges and what
`shortlist batch` writes. `answers` are what a user would see, under every rule.
Shapes: U users asked for, L list length, S sources.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.evaluation.metrics import NOTHING, Lists
from components.evaluation.slices import made_cold
from serving.bundle.arrays import Floats, Rows
from serving.bundle.bundle import Bundle
from serving.query import Request
from serving.recommender import Recommender
from serving.rules.rule import Bar
from serving.state.user_state import StateTable, UserState
from serving.system import System

FILLED = -1  # in place of a source: the popular list filled the list up
ALONE_BELOW = 400  # fewer questions than this are not worth starting processes
CHUNK = 40  # users a task


@dataclass(frozen=True)
class Question:
    """The same thing asked for many users."""

    users: NDArray[np.int64]  # (U,) indices into the state table
    length: int  # L
    discover: bool = False
    baskets: int | None = None  # as if only their last baskets were known
    all_rules: bool = False


@dataclass(frozen=True)
class BatchResult:
    """The lists of one question, row u for its user u."""

    rows: Lists  # (U, L) of the bundle's own catalogue
    scores: NDArray[np.float32]  # (U, L)
    source: NDArray[np.int8]  # (U, L) the source that had it best, in the system's order; FILLED for none
    cpu_ms: NDArray[np.float64]  # (U,)
    wall_ms: NDArray[np.float64]  # (U,)


class BatchWorker:
    """One bundle and one table of states, ready to be asked."""

    def __init__(self, system: System, bundle: Path, states: Path) -> None:
        self.full = open_recommender(system, bundle)
        hard = tuple(rule for rule in system.rules if isinstance(rule, Bar))
        self.ranked = Recommender(self.full.bundle, replace(system, rules=hard), rankers=self.full.rankers, sources=self.full.sources)
        self.states = StateTable.load(states)

    def tell(self, question: Question) -> BatchResult:
        """Answer a question for all its users, one after another."""
        shape = (len(question.users), question.length)
        told = BatchResult(
            np.full(shape, NOTHING, np.int32),
            np.zeros(shape, np.float32),
            np.full(shape, FILLED, np.int8),
            *np.zeros((2, len(question.users))),
        )
        for at, user in enumerate(question.users.tolist()):
            state = self.states[user]
            state = state if question.baskets is None else made_cold(state, question.baskets)
            cpu, wall = time.process_time(), time.perf_counter()
            rows, scores, source = self._list(question, state, self.states.asked_day(user))
            told.cpu_ms[at], told.wall_ms[at] = (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3
            told.rows[at, : len(rows)], told.scores[at, : len(rows)], told.source[at, : len(rows)] = rows, scores, source
        return told

    def _list(self, question: Question, state: UserState, day: float) -> tuple[Lists, NDArray[np.float32], NDArray[np.int8]]:
        """Rows, scores and sources of one list."""
        recommender = self.full if question.all_rules else self.ranked
        request = Request(state.user_id, question.length, day, discover=question.discover)
        query = recommender.query(request, state)
        side = recommender.user_side(query)
        pool = recommender.retrieve(query, side)
        arranged = recommender.arrange(query, recommender.scoring.order(pool, recommender.scoring.rank(query, side, pool)))
        return arranged.rows, arranged.scores, _best_source(arranged.rows, pool.rows, pool.source_ranks)


def open_recommender(system: System, bundle: Path) -> Recommender:
    """The recommender that serves, without a clock over it. Raises `serving.bundle.bundle.BadBundle` naming what differs."""
    return Recommender(Bundle.load(bundle), system)


def ask(
    system: System, bundle: Path, states: Path, questions: Sequence[Question], advance: Callable[[int], None] | None = None
) -> list[BatchResult]:
    """Every question answered, in their order. `advance` is told how many users are done, as they are."""
    tasks = [(number, replace(question, users=users)) for number, question in enumerate(questions) for users in _chunks(question.users)]
    workers = min(os.cpu_count() or 1, 8)
    if workers == 1 or sum(len(question.users) for question in questions) < ALONE_BELOW:
        desk = BatchWorker(system, bundle, states)
        parts = [_advanced(desk.tell(task), advance) for _, task in tasks]
    else:
        parts = _by_processes(workers, (system, bundle, states), [task for _, task in tasks], advance)
    grouped: list[list[BatchResult]] = [[] for _ in questions]
    for (number, _), part in zip(tasks, parts, strict=True):
        grouped[number].append(part)
    return [_joined(told) for told in grouped]


def _chunks(users: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(users, range(CHUNK, len(users), CHUNK))


def _by_processes(
    workers: int, opened: tuple[System, Path, Path], tasks: list[Question], advance: Callable[[int], None] | None
) -> list[BatchResult]:
    """Spawned, not forked: the parent may hold threads of torch or DuckDB. Each worker maps the same bundle and computes on one thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the workers' numpy when they start
    with ProcessPoolExecutor(workers, get_context("spawn"), _open_desk, opened) as pool:
        futures = [pool.submit(_tell, task) for task in tasks]
        for future in as_completed(futures):
            _advanced(future.result(), advance)
        return [future.result() for future in futures]


_desk: BatchWorker  # of a worker process


def _open_desk(system: System, bundle: Path, states: Path) -> None:
    global _desk
    _desk = BatchWorker(system, bundle, states)


def _tell(question: Question) -> BatchResult:
    return _desk.tell(question)


def _advanced(told: BatchResult, advance: Callable[[int], None] | None) -> BatchResult:
    if advance:
        advance(len(told.rows))
    return told


def _joined(parts: Sequence[BatchResult]) -> BatchResult:
    names = ("rows", "scores", "source", "cpu_ms", "wall_ms")
    return BatchResult(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _best_source(rows: Rows, pool_rows: Rows, ranks: Floats) -> NDArray[np.int8]:
    """(L,) of each listed row, the source in which it stood best."""
    order = np.argsort(pool_rows)
    at = order[np.minimum(np.searchsorted(pool_rows, rows, sorter=order), len(order) - 1)] if len(order) else np.zeros(len(rows), np.intp)
    if not len(order):
        return np.full(len(rows), FILLED, np.int8)
    known = (pool_rows[at] == rows) & np.isfinite(ranks[at]).any(axis=1)
    return np.where(known, ranks[at].argmin(axis=1), FILLED).astype(np.int8)
