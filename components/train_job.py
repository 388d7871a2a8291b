"""A stage of the loop that learns, as one process of several: what each pod of a Kubeflow `TrainJob` runs.

    torchrun --nproc-per-node 2 -m components.train_job retrieval video DATA

DATA is a folder that all of them see, with `features/` as the loop's step leaves it. What is learnt goes to `DATA/<stage>/`; checkpoints
stand beside it until it is done, so that the same command goes on where a former one was stopped.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from components.retrieval.fit import fit as fit_retrieval
from components.together import Together, joined
from serving.system import System, load_system


def retrieval(system: System, data: Path, out: Path, together: Together) -> None:
    """The candidate sources."""
    fit_retrieval(system, data / "features", out, together=together)


STAGES: dict[str, Callable[[System, Path, Path, Together], None]] = {"retrieval": retrieval}


def main(stage: str, system: str, data: Path) -> None:
    """Learn the stage with the others. Raises `ValueError` for a stage that there is not, and what the stage's own `fit` does."""
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: expected one of {', '.join(STAGES)}")
    checkpoints = data / f"{stage}.together"
    with joined(checkpoints) as together:
        STAGES[stage](load_system(system), data, data / stage, together)
    if together.first:
        shutil.rmtree(checkpoints)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
