"""A ranker learnt by several processes together: each takes its share of every batch, gradients are averaged (DistributedDataParallel).

    torchrun --nproc-per-node 2 -m components.ranking.together JOB OUT

JOB is what `launch` wrote: a function and its arguments. Every process maps the same examples and reads the rows of its own queries.
Gloo on CPUs, NCCL where every process has a GPU. After each epoch the first process leaves a checkpoint beside OUT's results; when a worker
dies all end, are started again and go on from it. Batches, rates and epochs are those of one process, so the losses are too.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from components.ranking.model import Ranker, load, save

RESTARTS = 2  # of all workers, when one of them died; torchrun's own --max-restarts hung on Gloo after a SIGKILL
_CHECKPOINT = "checkpoint.pt"
Learn = Callable[..., tuple[Ranker, dict[str, Any]]]  # takes `together`, too


@dataclass(frozen=True)
class Together:
    """One process's place among those that learn the same ranker."""

    rank: int = 0
    world: int = 1
    folder: Path | None = None  # of checkpoints; None: none are kept

    def share(self, batch: NDArray[np.intp]) -> tuple[NDArray[np.intp], float]:
        """This process's part of a batch, and what its mean loss counts for, so that the mean over processes is the batch's."""
        own = batch[self.rank :: self.world]
        return own, len(own) * self.world / len(batch)

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

    def keep(self, epoch: int, losses: list[float], rng: np.random.Generator, **parts: Any) -> None:
        """A checkpoint after an epoch, in one step."""
        if self.folder is None or self.rank:
            return
        states = {name: part.state_dict() for name, part in parts.items()}
        file = self.folder / _CHECKPOINT
        torch.save({"epoch": epoch, "losses": losses, "rng": rng.bit_generator.state, "parts": states}, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)

    def go_on(self, rng: np.random.Generator, **parts: Any) -> tuple[int, list[float]]:
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

    def __init__(self, model: Ranker, loss: Any) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, queries: NDArray[np.intp]) -> Tensor:
        return self._loss(self.model, queries)  # type: ignore[no-any-return]


def launch(learn: Learn, arguments: tuple[Any, ...], out: Path, processes: int) -> tuple[Ranker, dict[str, Any]]:
    """What `learn` gives for the arguments, by that many processes. Raises `RuntimeError` with the end of what they said."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "job.pickle").write_bytes(pickle.dumps((learn, arguments)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "components.ranking.together", str(out / "job.pickle"), str(out)]
    for _ in range(1 + RESTARTS):
        done = subprocess.run(command, env={"OMP_NUM_THREADS": "1", **os.environ}, capture_output=True, text=True, check=False)
        if not done.returncode:
            break
    else:
        raise RuntimeError(f"{processes} processes did not learn a ranker together, exit {done.returncode}:\n{done.stderr[-2000:]}")
    return load(out / "ranker.pt"), pickle.loads((out / "told.pickle").read_bytes())


def main(job: Path, out: Path) -> None:
    """One worker's whole life."""
    distributed.init_process_group("nccl" if torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]) else "gloo")
    together = Together(distributed.get_rank(), distributed.get_world_size(), out)
    learn, arguments = pickle.loads(job.read_bytes())
    model, told = learn(*arguments, together=together)
    if not together.rank:
        save(model, out / "ranker.pt")
        (out / "told.pickle").write_bytes(pickle.dumps(told))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
