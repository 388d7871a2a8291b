"""Several processes learn what one learns: the same losses, and a worker that is killed costs an epoch, not the run."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.ranking.model import Ranker
from components.ranking.together import ALONE, Together, launch
from components.ranking.train import Fitting, fit
from tests.components.ranking.test_train import OBJECTIVES, SIZES, known_world

FITTING = Fitting(epochs=6, least_steps=1, queries=20, rate=1e-2)


def learn(victim: str, together: Together = ALONE) -> tuple[Ranker, dict[str, Any]]:
    """The known world's ranker and its losses. `victim`: a folder; the second process is killed once after its first checkpoint."""
    torch.set_num_threads(1)
    if victim and together.rank == 1 and not Path(victim, "died").exists():
        threading.Thread(target=die_after_a_checkpoint, args=(Path(victim),), daemon=True).start()
    losses: list[float] = []
    material = known_world()
    return fit(SIZES, material, material.of_cuts(0, 2), FITTING, OBJECTIVES, losses.append, together=together), {"losses": losses}


def die_after_a_checkpoint(folder: Path) -> None:
    while not (folder / "checkpoint.pt").exists():
        os.sched_yield()
    (folder / "died").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def numbers(model: Ranker) -> np.ndarray:
    return np.concatenate([part.detach().numpy().ravel() for part in model.parameters()])


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ranker, dict[str, Any]]:
    return launch(learn, ("",), tmp_path_factory.mktemp("two"), 2)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(by_two: tuple[Ranker, dict[str, Any]]) -> None:
    alone, told = learn("")
    assert len(told["losses"]) == FITTING.epochs
    assert told["losses"][-1] < 0.8 * told["losses"][0]
    np.testing.assert_allclose(by_two[1]["losses"], told["losses"], rtol=2e-3)
    np.testing.assert_allclose(numbers(by_two[0]), numbers(alone), atol=0.05)


@pytest.mark.slow
def test_a_killed_worker_costs_no_more_than_an_epoch(by_two: tuple[Ranker, dict[str, Any]], tmp_path: Path) -> None:
    model, told = launch(learn, (str(tmp_path),), tmp_path, 2)
    assert (tmp_path / "died").exists()
    assert told["losses"] == by_two[1]["losses"]
    assert numbers(model).tobytes() == numbers(by_two[0]).tobytes()


def test_shares_are_all_of_a_batch_and_count_by_their_size() -> None:
    batch = np.arange(7)
    shares = [Together(rank, 2).share(batch) for rank in (0, 1)]
    assert sorted(np.concatenate([own for own, _ in shares]).tolist()) == batch.tolist()
    assert [counts for _, counts in shares] == [8 / 7, 6 / 7]
