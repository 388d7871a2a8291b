"""Several processes learn what one learns: the same losses, and a worker that is killed costs an epoch, not the run."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.ranking.model import Ranker, Sizes
from components.ranking.train import Fitting, fit
from components.retrieval import two_tower
from components.retrieval.fit import fit as fit_retrieval
from components.retrieval.tower_model import Towers
from components.retrieval.tower_training import Trainer, Training
from components.together import ALONE, Together, launch
from serving.bundle.content import catalogue_content
from tests.components.ranking.test_train import OBJECTIVES, SIZES, known_world
from tests.components.retrieval.test_fit import SYSTEM, features
from tests.components.retrieval.test_two_tower import SIZE, coloured
from tests.components.retrieval.worlds import catalogue, cut

FITTING = Fitting(epochs=6, least_steps=1, queries=20, rate=1e-2)
TRAINING = Training(first_epochs=6, later_epochs=1, users_a_batch=7, examples_a_user=8, rate=1e-2)  # of 60 users the last batch has four
DEEP = replace(SIZES, towers=(16, 16), dropout=0.1)


def learn_ranker(victim: str, sizes: Sizes = SIZES, together: Together = ALONE) -> tuple[Ranker, list[float]]:
    """The known world's ranker and its losses. `victim`: a folder; the second process is killed once after its first checkpoint."""
    torch.set_num_threads(1)
    endanger(victim, "checkpoint.pt", together)
    losses: list[float] = []
    material = known_world()
    return fit(sizes, material, material.of_cuts(0, 2), FITTING, OBJECTIVES, losses.append, together=together), losses


def learn_towers(victim: str, users: int = 60, together: Together = ALONE) -> tuple[Towers, list[float]]:
    """The coloured world's towers and their losses at two cuts, of which the second goes on from the first."""
    torch.set_num_threads(1)
    endanger(victim, "then/checkpoint.pt", together)
    events, kinds = coloured()
    world = cut([event for event in events if int(event[0]) < users], catalogue([f"{i:02d}" for i in range(SIZE)], kinds))
    trainer = Trainer(world, catalogue_content(world.catalogue), 16, TRAINING, seed=0)
    prior = two_tower.item_prior(world)
    losses = [loss for name in ("then", "now") for loss in trainer.learn(world, prior, TRAINING.first_epochs, together.at(name))]
    return trainer.towers, losses


LEARNT: dict[str, Any] = {"ranker": learn_ranker, "towers": learn_towers}


def endanger(victim: str, checkpoint: str, together: Together) -> None:
    if victim and together.rank == 1 and not Path(victim, "died").exists():
        threading.Thread(target=die_after, args=(Path(victim), checkpoint), daemon=True).start()


def die_after(folder: Path, checkpoint: str) -> None:
    while not (folder / checkpoint).exists():
        os.sched_yield()
    (folder / "died").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def numbers(model: torch.nn.Module) -> np.ndarray:
    return np.concatenate([part.detach().numpy().ravel() for part in model.parameters()])


@pytest.fixture(scope="module", params=LEARNT)
def by_two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, torch.nn.Module, list[float]]:
    """What is learnt, and the network and losses of two processes."""
    learn = LEARNT[request.param]
    return learn, *launch(learn, ("",), tmp_path_factory.mktemp("two"), 2)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(by_two: tuple[Any, torch.nn.Module, list[float]]) -> None:
    learn, model, losses = by_two
    alone, told = learn("")
    assert len(told) in (FITTING.epochs, 2 * TRAINING.first_epochs)
    assert told[-1] < 0.9 * told[0]
    np.testing.assert_allclose(losses, told, rtol=2e-3)
    np.testing.assert_allclose(numbers(model), numbers(alone), atol=0.05)


@pytest.mark.slow
def test_a_killed_worker_costs_no_more_than_an_epoch(by_two: tuple[Any, torch.nn.Module, list[float]], tmp_path: Path) -> None:
    learn, model, losses = by_two
    again, told = launch(learn, (str(tmp_path),), tmp_path, 2)
    assert (tmp_path / "died").exists()
    assert told == losses
    assert numbers(again).tobytes() == numbers(model).tobytes()


@pytest.mark.slow
def test_deep_sides_whose_batch_norm_sees_half_a_batch_learn_much_the_same(tmp_path: Path) -> None:
    _, losses = launch(learn_ranker, ("", DEEP), tmp_path, 2)
    _, told = learn_ranker("", DEEP)
    assert told[-1] < 0.9 * told[0]
    np.testing.assert_allclose(losses, told, rtol=0.05)


@pytest.mark.slow
def test_a_process_without_a_user_of_a_batch_changes_nothing(tmp_path: Path) -> None:
    """Of 29 users in batches of seven the last batch is one user, and one of two processes has none."""
    model, losses = launch(learn_towers, ("", 29), tmp_path, 2)
    alone, told = learn_towers("", 29)
    np.testing.assert_allclose(losses, told, rtol=2e-3)
    np.testing.assert_allclose(numbers(model), numbers(alone), atol=0.05)


@pytest.mark.slow
def test_a_stage_of_the_loop_is_learnt_by_several_where_its_system_says_so(tmp_path: Path) -> None:
    """Files and losses of two processes that the stage starts, of two that a train job is, and of one."""
    folder = features(tmp_path / "features")
    two = replace(SYSTEM, learning=replace(SYSTEM.learning, processes=2))
    fit_retrieval(SYSTEM, folder, tmp_path / "one")
    fit_retrieval(two, folder, tmp_path / "two")
    (tmp_path / "board.py").write_text("from tests.components.retrieval import test_fit\n\nBOARD = test_fit.SYSTEM\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "components.train_job"]
    subprocess.run(
        [*command, "retrieval", str(tmp_path / "board.py"), str(tmp_path)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    outs = [tmp_path / name for name in ("one", "two", "retrieval")]
    files = [sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) for out in outs]
    losses = [json.loads((out / "retrieval.json").read_text())["losses"] for out in outs]
    assert files == 3 * [files[0]]
    assert losses[1] == losses[2]
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)
    assert not (tmp_path / "retrieval.together").exists()


def test_shares_are_all_of_a_batch_and_count_by_their_size() -> None:
    batch = np.arange(7)
    shares = [Together(rank, 2).share(batch) for rank in (0, 1)]
    assert sorted(np.concatenate([own for own, _ in shares]).tolist()) == batch.tolist()
    assert [counts for _, counts in shares] == [8 / 7, 6 / 7]


def test_where_there_is_less_than_processes_somebody_elses_counts_for_nothing() -> None:
    own, counts = Together(1, 2).share(np.array([5]))
    assert (own.tolist(), counts) == ([5], 0.0)
