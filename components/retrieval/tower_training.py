"""Training of the two towers, cut after cut: each cut starts from the last one's weights, and none has seen its own label week.

An example: an item a user had, to be found from the rest of the history (the bag without it). Negatives: the other items of the batch, with
the logQ correction (Yi 2019, https://research.google/pubs/pub48840/), those of the same user left out.

Of several processes (`components/together.py`) each has the examples of its own users and finds them among the whole batch's items, so that
negatives are as many as one process has; all draw the same, and read the histories of their own users alone.
Shapes: U users, N history rows, B examples of a batch, O of them this process's own, D dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding

from components.cut import Cut
from components.retrieval.tower_model import TEMPERATURE, TowerConfig, Towers
from components.together import ALONE, LossOf, Together
from serving.bundle.content import Content
from serving.retrieval.two_tower import BAG_TAU_DAYS


@dataclass(frozen=True)
class Training:
    """How long and how fast."""

    first_epochs: int  # at the first cut
    later_epochs: int  # at every later one, from the weights of the one before
    users_a_batch: int = 32
    examples_a_user: int = 32
    rate: float = 2e-3
    drop_own: float = 0.5  # share of items whose own row is hidden, so that content learns to stand alone


FULL, FAST = (
    Training(first_epochs=3, later_epochs=1),
    Training(first_epochs=2, later_epochs=1, examples_a_user=16),
)  # more epochs forget the new items
_START_TAU_DAYS = 150.0
_OVERSAMPLING, _POWER_ITERATIONS = 16, 3


class Trainer:
    """Holds the towers and their optimisers from cut to cut."""

    def __init__(self, cut: Cut, content: Content, dimensions: int, training: Training, seed: int) -> None:
        self.training = training
        self.random = np.random.default_rng(seed)
        torch.manual_seed(seed)  # of the first weights
        self.chance = Chance(seed)
        self.towers = Towers(TowerConfig(dimensions, cut.users.features.shape[1], len(cut.catalogue)))
        self.tokens = torch.from_numpy(content.tokens).long()
        self.numbers = torch.from_numpy(content.numbers)
        _standardise(self.towers.item, content.numbers)
        _standardise(self.towers.user, np.asarray(cut.users.features))
        self._start(cut, seed)
        sparse = [self.towers.own.weight, self.towers.history.weight, self.towers.item.tokens.weight]
        dense = [parameter for parameter in self.towers.parameters() if not any(parameter is other for other in sparse)]
        self.optimisers = (torch.optim.SparseAdam(sparse, lr=training.rate), torch.optim.Adam(dense, lr=training.rate))

    def go_on_from(self, former: Towers, rows: NDArray[np.int64]) -> None:
        """Take over what was learnt before; `rows` (I,): the row each item had there, -1: none, so that its content stands for it."""
        known = torch.from_numpy(rows >= 0)
        at = torch.from_numpy(np.maximum(rows, 0))
        items = ("own.weight", "history.weight")
        with torch.no_grad():
            self.towers.load_state_dict({**self.towers.state_dict(), **{k: v for k, v in former.state_dict().items() if k not in items}})
            content = self.towers.item(self.tokens, self.numbers)  # (I, D) of length one
            usual = former.history.weight.norm(dim=1).mean()
            self.towers.own.weight.copy_(former.own.weight[at] * known[:, None])
            self.towers.history.weight.copy_(torch.where(known[:, None], former.history.weight[at], content * usual))

    def learn(self, cut: Cut, prior: NDArray[np.float32], epochs: int, together: Together = ALONE) -> list[float]:
        """Epochs over the users of a cut; the mean loss of each."""
        examples = TowerExamples(cut, self.training, self.random, together)
        bias = torch.from_numpy(prior) - examples.log_q  # (I,)
        loss_of = together.wrapped(LossOf(self.towers, lambda _, batch: self._loss(batch, bias)))
        parts = {"towers": self.towers, "sparse": self.optimisers[0], "dense": self.optimisers[1], "chance": self.chance}
        done, means = together.go_on(self.random, **parts)
        self.towers.train()
        for epoch in range(done, epochs):
            losses = [self._step(loss_of(batch)) for batch in examples.batches()]
            means.append(together.mean(losses) if losses else 0.0)
            together.keep(epoch + 1, means, self.random, **parts)
        return means

    def _loss(self, batch: "Batch", bias: Tensor) -> Tensor:
        """This process's part of the batch's mean loss, times as many as processes are. `bias` (I,): what is added to an item's logit."""
        towers = self.towers
        own, target = batch.own, batch.target[batch.own]  # (O,)
        bags = towers.history(batch.rows, batch.offsets, per_sample_weights=batch.weights)  # (users, D)
        rest = bags[batch.user] - batch.target_weight[:, None] * embedding(target, towers.history.weight, sparse=True)
        bag = rest / (batch.total[batch.user] - batch.target_weight).clamp_min(1e-6)[:, None]  # (O, D)
        user = towers.user(batch.features[batch.user], bag)
        kept = (torch.rand(len(batch.target), generator=self.chance.generator) >= self.training.drop_own).float()[:, None]
        item = towers.item(self.tokens[batch.target], self.numbers[batch.target], towers.own(batch.target) * kept)
        logits = user @ item.T / TEMPERATURE + bias[batch.target]  # (O, B)
        same = (batch.owner[own][:, None] == batch.owner[None, :]) | (target[:, None] == batch.target[None, :])
        same[torch.arange(len(own)), own] = False
        return batch.counts * cross_entropy(logits.masked_fill(same, -1e9), own, reduction="sum")

    def _step(self, loss: Tensor) -> float:
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        told = float(loss.detach())
        if not np.isfinite(told):
            raise ValueError(f"the towers' loss is {told}: a user or item feature of the cut is no finite number, or the rate is too high")
        return told

    def _start(self, cut: Cut, seed: int) -> None:
        """Both item tables start at the right singular vectors of the history: the towers begin as a good linear model."""
        vectors = torch.from_numpy(singular_vectors(cut, self.towers.config.dimensions, seed))
        with torch.no_grad():
            self.towers.own.weight.copy_(vectors)
            self.towers.history.weight.copy_(vectors)
            self.towers.item.tokens.weight.mul_(0.02)
            self.towers.item.numbers.weight.mul_(0.1)
            self.towers.user.features[-1].weight.mul_(0.1)


class Chance:
    """A generator of torch's whose place in its sequence a checkpoint keeps."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.generator.set_state(state["state"])


@dataclass(frozen=True)
class Batch:
    """The examples drawn from some users, and the whole histories of those that are this process's own."""

    rows: Tensor  # history item rows of its own users, end to end
    weights: Tensor
    offsets: Tensor  # (users,) where each begins
    total: Tensor  # (users,) summed weights
    features: Tensor  # (users, Fu)
    user: Tensor  # (O,) index into its own users
    own: Tensor  # (O,) its own examples among all
    target_weight: Tensor  # (O,) the target's weight in the bag
    owner: Tensor  # (B,) which of the batch's users each example is of
    target: Tensor  # (B,) item row
    counts: float  # of each of its own examples in the mean over processes


class TowerExamples:
    """Draws examples from a cut's history, recent items more often."""

    def __init__(self, cut: Cut, training: Training, random: np.random.Generator, together: Together = ALONE) -> None:
        history = cut.history
        self.training, self.random, self.together = training, random, together
        self.row, self.size = history.row, np.bincount(history.user, minlength=history.shape[0])
        self.begin = np.concatenate([[0], np.cumsum(self.size)])
        self.weight = np.log1p(history.decay(BAG_TAU_DAYS)).astype(np.float32)
        self.chance = np.sqrt(history.decay(BAG_TAU_DAYS)) + 0.02
        self.features = np.asarray(cut.users.features)
        drawn = np.where(self.size >= 2, np.minimum(self.size, training.examples_a_user), 0)
        sampled = np.bincount(history.row, inclusion(self.chance, history.user, drawn), minlength=history.shape[1])
        self.log_q = torch.from_numpy(np.log(np.maximum(sampled / max(sampled.sum(), 1e-9), 1e-9)).astype(np.float32))  # (I,)

    def batches(self) -> Iterator[Batch]:
        """One pass over the users with at least two items, in a random order."""
        users = self.random.permutation(np.flatnonzero(self.size >= 2))
        step = self.training.users_a_batch
        for begin in range(0, len(users), step):
            yield self._batch(users[begin : begin + step])

    def _batch(self, users: NDArray[np.int64]) -> Batch:
        spans = [np.arange(self.begin[user], self.begin[user + 1]) for user in users]
        drawn = [span[self._draw(span)] for span in spans]
        targets, of = np.concatenate(drawn), np.repeat(np.arange(len(users)), [len(one) for one in drawn])
        mine, counts = self.together.share(np.arange(len(users)))
        own = np.flatnonzero(np.isin(of, mine))
        entries, sizes = np.concatenate([spans[at] for at in mine]), self.size[users[mine]]
        weights = self.weight[entries]
        return Batch(
            rows=torch.from_numpy(self.row[entries]).long(), weights=torch.from_numpy(weights),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)[:-1]])),
            total=torch.from_numpy(np.bincount(np.repeat(np.arange(len(mine)), sizes), weights).astype(np.float32)),
            features=torch.from_numpy(self.features[users[mine]]),
            user=torch.from_numpy(np.searchsorted(mine, of[own])), own=torch.from_numpy(own),
            target_weight=torch.from_numpy(self.weight[targets[own]]),
            owner=torch.from_numpy(of), target=torch.from_numpy(self.row[targets]).long(),
            counts=self.together.world / len(targets) if counts else 0.0,
        )  # fmt: skip

    def _draw(self, span: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of distinct examples, drawn by chance (Gumbel top-k)."""
        keys = np.log(self.chance[span]) + self.random.gumbel(size=len(span))
        count = min(self.training.examples_a_user, len(span))
        return np.argpartition(-keys, count - 1)[:count]


def inclusion(chance: NDArray[np.floating], user: NDArray[np.int64], drawn: NDArray[np.integer]) -> NDArray[np.float64]:
    """(N,) the probability that each entry is among the `drawn` (U,) distinct ones that its user gives, drawn one by one by `chance` (N,).

    Entries arrive as Poisson processes at their chance; the time by which as many have come as are drawn makes the probabilities sum to
    them (Rosén 1997, https://doi.org/10.1016/S0378-3758(96)00186-3). Exact where all are drawn; within .12 nats for seven.
    """
    users = len(drawn)
    size = np.bincount(user, minlength=users)
    low, high = np.full(users, -40.0), np.full(users, 40.0)  # logarithm of the time
    rate = chance / np.maximum(np.bincount(user, chance, minlength=users), 1e-30)[user]
    for _ in range(60):
        middle = (low + high) / 2
        came = np.bincount(user, -np.expm1(-rate * np.exp(middle)[user]), minlength=users)
        low, high = np.where(came < drawn, middle, low), np.where(came < drawn, high, middle)
    found = -np.expm1(-rate * np.exp((low + high) / 2)[user])
    return np.where((drawn >= size)[user], 1.0, np.where((drawn == 0)[user], 0.0, found))


def singular_vectors(cut: Cut, dimensions: int, seed: int) -> NDArray[np.float32]:
    """(I, D) right singular vectors of the log counts, each item's scaled to length one; zero for the never had.

    Randomised (Halko, Martinsson, Tropp 2011, https://arxiv.org/abs/0909.4061, algorithm 4.4): less than a second where exact takes ten.
    """
    import scipy.sparse

    history = cut.history
    values = np.log1p(history.decay(_START_TAU_DAYS))
    counted = scipy.sparse.csr_matrix((values, (history.user, history.row)), shape=history.shape, dtype=np.float32)
    norms = np.sqrt(np.asarray(counted.multiply(counted).sum(axis=0)).ravel())
    scaled = (counted @ scipy.sparse.diags(1 / np.sqrt(np.maximum(norms, 1e-6)))).astype(np.float32).tocsr()
    width = min(dimensions + _OVERSAMPLING, *history.shape)
    basis = np.linalg.qr(scaled @ np.random.default_rng(seed).normal(size=(history.shape[1], width)).astype(np.float32))[0]
    for _ in range(_POWER_ITERATIONS):
        basis = np.linalg.qr(scaled @ (scaled.T @ basis))[0]  # (U, width)
    reduced = scaled.T @ basis  # (I, width)
    values, rotation = np.linalg.eigh(reduced.T @ reduced)
    right = (reduced @ (rotation / np.sqrt(np.maximum(values, 1e-6)))[:, ::-1])[:, :dimensions]
    vectors = np.zeros((history.shape[1], dimensions), np.float32)
    vectors[:, : right.shape[1]] = right
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-9) * (lengths > 1e-9)


def _standardise(tower: torch.nn.Module, values: NDArray[np.float32]) -> None:
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, values - mean, 0) ** 2).sum(axis=0) / count)
    tower.mean.copy_(torch.from_numpy(mean.astype(np.float32)))
    tower.spread.copy_(torch.from_numpy(np.where(spread > 1e-6, spread, 1).astype(np.float32)))
