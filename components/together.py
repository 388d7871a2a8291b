"""Towers or a ranker learnt by several processes together: each takes its share of every batch, gradients are averaged.

    torchrun --nproc-per-node 2 -m components.together JOB OUT

JOB is what `launch` wrote: a function and its arguments. Every process maps the same examples and reads the rows of its own queries or
users. DistributedDataParallel over Gloo; over NCCL what lies on a GPU. After each epoch the first process leaves a checkpoint; when a
worker dies all end, are started again and go on from it. Batches, rates and epochs are those of one process, so the losses are too.
"""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

RESTARTS = 2  # of all workers, when one of them died; torchrun's own --max-restarts hung on Gloo after a SIGKILL
PATIENCE = timedelta(hours=6)  # with the first, which makes the examples; one that died is noticed at once
_CHECKPOINT, _LEARNT = "checkpoint.pt", "learnt.pickle"


class Resumable(Protocol):
    """What a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Together:
    """One process's place among those that learn the same network."""

    rank: int = 0
    world: int = 1
    folder: Path | None = None  # of checkpoints; None: none are kept

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return not self.rank

    def wait(self) -> None:
        """For all processes to come here."""
        if self.world > 1:
            distributed.barrier()

    def at(self, stage: str) -> "Together":
        """The same place in one of several stages, whose checkpoints lie apart."""
        if self.folder is None:
            return self
        (self.folder / stage).mkdir(parents=True, exist_ok=True)
        return replace(self, folder=self.folder / stage)

    def share(self, batch: NDArray[np.intp]) -> tuple[NDArray[np.intp], float]:
        """This process's part of a batch, and what its mean loss counts for, so that the mean over processes is the batch's.

        Where there is nothing left for it: the first one's, for nothing.
        """
        own = batch[self.rank :: self.world]
        return own if len(own) else batch[:1], len(own) * self.world / len(batch)

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over all processes; itself where there is one."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    def mean(self, values: Sequence[float]) -> float:
        """Over the values of all processes."""
        told = torch.tensor([float(np.mean(values))], dtype=torch.float64)
        if self.world > 1:
            distributed.all_reduce(told)
        return float(told) / self.world

    def keep(self, epoch: int, losses: list[float], rng: np.random.Generator, **parts: Resumable) -> None:
        """A checkpoint after an epoch, in one step."""
        if self.folder is None or not self.first:
            return
        states = {name: part.state_dict() for name, part in parts.items()}
        file = self.folder / _CHECKPOINT
        torch.save({"epoch": epoch, "losses": losses, "rng": rng.bit_generator.state, "parts": states}, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)

    def go_on(self, rng: np.random.Generator, **parts: Resumable) -> tuple[int, list[float]]:
        """Put the parts where the last checkpoint left them: epochs done and their losses; 0 and none where there is no checkpoint."""
        if self.folder is None or not (self.folder / _CHECKPOINT).is_file():
            return 0, []
        kept = torch.load(self.folder / _CHECKPOINT, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(kept["parts"][name])
        rng.bit_generator.state = kept["rng"]
        return int(kept["epoch"]), list(kept["losses"])


ALONE = Together()


class LossOf(nn.Module):
    """A batch's loss as a module, which is what gradients are averaged for."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, share: Any) -> Tensor:
        return self._loss(self.model, share)


def launch(learn: Callable[..., Any], arguments: tuple[Any, ...], out: Path, processes: int) -> Any:
    """What `learn`, which takes `together` too, gives for them, by that many processes. Raises `RuntimeError` with what they said."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "job.pickle").write_bytes(pickle.dumps((learn, arguments)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "components.together", str(out / "job.pickle"), str(out)]
    for _ in range(1 + RESTARTS):
        done = subprocess.run(command, env={"OMP_NUM_THREADS": "1", **os.environ}, capture_output=True, text=True, check=False)
        if not done.returncode:
            break
    else:
        raise RuntimeError(f"{processes} processes did not learn together, exit {done.returncode}:\n{done.stderr[-2000:]}")
    return pickle.loads((out / _LEARNT).read_bytes())


@contextmanager
def joined(folder: Path) -> Iterator[Together]:
    """This process's place among those torchrun started, over which gradients are averaged; all leave when all are done."""
    folder.mkdir(parents=True, exist_ok=True)
    gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    together = Together(distributed.get_rank(), distributed.get_world_size(), folder)
    yield together
    together.wait()
    distributed.destroy_process_group()


def by_processes(learn: Callable[..., Any], arguments: tuple[Any, ...], out: Path, processes: int) -> Any:
    """`launch` with its checkpoints in `out` as long as it runs."""
    work = out / "together"
    learnt = launch(learn, arguments, work, processes)
    shutil.rmtree(work)
    return learnt


def main(job: Path, out: Path) -> None:
    """One worker's whole life."""
    learn, arguments = pickle.loads(job.read_bytes())
    with joined(out) as together:
        learnt = learn(*arguments, together=together)
        if together.first:
            (out / _LEARNT).write_bytes(pickle.dumps(learnt))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
