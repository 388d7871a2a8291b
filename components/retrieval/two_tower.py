"""Fits `serving/retrieval/two_tower.py`: what the trained towers say of every item at a cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from components.cut import Cut
from components.retrieval import cells
from components.retrieval.tower_model import TEMPERATURE, TowerConfig, Towers
from components.retrieval.tower_training import FAST, FULL, Trainer
from components.start import BadStart, Start
from components.together import ALONE, Together
from serving.bundle.content import Content, catalogue_content
from serving.retrieval.top_k import EXACT_LIMIT
from serving.retrieval.two_tower import BAG_TAU_DAYS, TowerTable
from serving.system import SourceSpec

PRIOR_DAYS = 28.0
LEAST_EXPECTED = 1e-3  # users of any item in those days: of a quiet one where nothing is new the log would be of nought
_BLOCK = 8192
_TRIALS, _TRIAL_DEPTH = 64, 1000


class Advancing:
    """Towers that learn along the cuts: `advance` takes them to the next one and leaves a snapshot there. `start`: go on from those."""

    def __init__(self, spec: SourceSpec, fast: bool, seed: int, start: Start | None = None, together: Together = ALONE) -> None:
        self.together = together
        self.dimensions, self.seed, self.start = int(spec.settings["dimensions"]), seed, start
        self.training = FAST if fast else FULL
        self.trainer: Trainer | None = None
        self.losses: list[float] = []

    def advance(self, cut: Cut, folder: Path, snapshot: Path) -> NDArray[np.float32] | None:
        """Learn the history before `cut`; the first process writes the item table and the weights, and has (U, D) user vectors."""
        content, prior = catalogue_content(cut.catalogue), item_prior(cut)
        epochs = self.training.later_epochs
        if self.trainer is None:
            self.trainer = Trainer(cut, content, self.dimensions, self.training, self.seed)
            if not self._went_on(cut, self.trainer):
                epochs = self.training.first_epochs
        self.losses.append(self.trainer.learn(cut, prior, epochs, self.together.at(cut.name))[-1])
        if not self.together.first:
            return None
        towers = self.trainer.towers.eval()
        write(cut, towers, content, prior, folder)
        towers.save(snapshot)
        vectors = user_vectors(cut, towers, folder)
        if len(cut.catalogue) > EXACT_LIMIT:
            write_cells(folder, vectors, self.seed)
        return vectors

    def _went_on(self, cut: Cut, trainer: Trainer) -> bool:
        """Whether there are towers to go on from, which are taken over. Raises `BadStart` where they are of another shape."""
        file = self.start.towers_before(cut.name) if self.start else None
        if self.start is None or file is None:
            return False
        former, own = Towers.load(file), trainer.towers.config
        if replace(former.config, items=own.items) != own:
            told = f"the towers of bundle {self.start.bundle[:12]} are {_told(former.config)}, now {_told(own)}"
            raise BadStart(f"{told}: train with --mode full")
        trainer.go_on_from(former, self.start.rows_of(cut.catalogue))
        return True


def _told(config: TowerConfig) -> str:
    return f"of {config.dimensions} dimensions and {config.user_features} user features"


def write_cells(folder: Path, users: NDArray[np.float32], seed: int) -> None:
    """Cells of the written table, tried with some of the users' vectors."""
    table = TowerTable.load(folder)
    trials = users[np.random.default_rng(seed).choice(len(users), min(_TRIALS, len(users)), replace=False)]
    cells.build(table, trials / np.float32(table.temperature), _TRIAL_DEPTH, seed).save(folder / "cells")


def write(cut: Cut, towers: Towers, content: Content, prior: NDArray[np.float32], folder: Path) -> None:
    """Item vectors (int8, one scale an item), priors and history rows."""
    vectors = item_vectors(cut, towers, content)
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-9) / np.iinfo(np.int8).max
    TowerTable(
        vectors=np.rint(vectors / scales[:, None]).astype(np.int8),
        scales=scales.astype(np.float32),
        prior=prior,
        history=_history(cut, towers, vectors),
        temperature=TEMPERATURE,
    ).save(folder)


def item_vectors(cut: Cut, towers: Towers, content: Content) -> NDArray[np.float32]:
    """(I, D) of length one; items never had before the cut from their content alone."""
    sold = torch.from_numpy(_sold(cut))[:, None]
    tokens, numbers = torch.from_numpy(content.tokens).long(), torch.from_numpy(content.numbers)
    with torch.no_grad():
        own = towers.own.weight * sold
        blocks = [
            towers.item(tokens[begin : begin + _BLOCK], numbers[begin : begin + _BLOCK], own[begin : begin + _BLOCK])
            for begin in range(0, len(tokens), _BLOCK)
        ]
    return torch.cat(blocks).numpy()


def item_prior(cut: Cut) -> NDArray[np.float32]:
    """(I,) log of the share of users that had the item in the last days."""
    lately = cut.history.users_since(cut.users.cut_day - PRIOR_DAYS)
    expected = np.maximum(lately + debut_rate(cut), LEAST_EXPECTED)
    return np.log(expected / expected.sum()).astype(np.float32)


def debut_rate(cut: Cut) -> NDArray[np.float32]:
    """(I,) users to expect in `PRIOR_DAYS` of an item nobody has had: what such items of its type had lately, smoothed by all types'."""
    history, catalogue = cut.history, cut.catalogue
    since = cut.users.cut_day - PRIOR_DAYS
    first = np.full(history.shape[1], np.inf)
    np.minimum.at(first, history.row, history.first_day)
    fresh = first >= since  # nobody had it when the days began
    lately = history.users_since(since) * fresh
    kind = catalogue.category[:, -1]
    sold, offered = np.bincount(kind, lately), np.bincount(kind, fresh)
    overall = float(sold.sum() / max(offered.sum(), 1))
    return ((sold + 10 * overall) / (offered + 10))[kind].astype(np.float32)


def user_vectors(cut: Cut, towers: Towers, folder: Path) -> NDArray[np.float32]:
    """(U, D) of everybody who is asked at the cut, from the history rows as served."""
    import scipy.sparse

    history = cut.asked_history
    weights = np.log1p(history.decay(BAG_TAU_DAYS))
    counted = scipy.sparse.csr_matrix((weights, (history.user, history.row)), shape=history.shape)
    totals = np.maximum(np.asarray(counted.sum(axis=1)), 1e-6)
    bag = counted @ TowerTable.load(folder).history.astype(np.float32) / totals
    with torch.no_grad():
        return towers.user(torch.from_numpy(np.array(cut.asked.features)), torch.from_numpy(bag.astype(np.float32))).numpy()


def _history(cut: Cut, towers: Towers, vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    """Rows of the bag; an item nobody had is represented by its content vector, at the usual length of a row."""
    rows = towers.history.weight.detach().numpy()
    sold = _sold(cut) > 0
    length = float(np.linalg.norm(rows[sold], axis=1).mean()) if sold.any() else 1.0
    return np.where(sold[:, None], rows, vectors * length).astype(np.float16)


def _sold(cut: Cut) -> NDArray[np.float32]:
    return (np.bincount(cut.history.row, minlength=cut.history.shape[1]) > 0).astype(np.float32)
