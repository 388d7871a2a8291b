"""Fit a ranker on examples: every head's loss over the items it judges, and where it says so a softmax over the query's list besides.

The list-wise part is the cross-entropy of ListNet (Cao et al. 2007) with sampled negatives standing for as many as they were drawn from.
Shapes: Q queries, N examples of a batch, H heads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.ranking.diversity import mean_logit, sameness
from components.ranking.examples import Examples
from components.ranking.fitted import SLOTS, item_codes
from components.ranking.model import Ranker, Sizes
from components.together import ALONE, LossOf, Together
from serving.bundle.arrays import Floats
from serving.bundle.catalogue import Catalogue
from serving.objectives import GROUPS, DiversityTerm, Objective
from serving.ranking.heads import Heads

AHEAD = 20.0  # times as fast as the rest learns what a slot adds


@dataclass(frozen=True)
class Material:
    """Examples of several cuts with the item features of each. Shapes: I items of all cuts end to end."""

    examples: Examples
    ends: NDArray[np.int64]  # (Q,) where each query's examples end
    item: NDArray[np.int64]  # (N,) row in `items`
    items: Floats  # (I, Fi)
    codes: NDArray[np.int32]  # (I, 4)
    judging: NDArray[np.bool_]  # (N, H) the heads that judge each example

    @classmethod
    def of(cls, examples: Examples, catalogues: Sequence[Catalogue], names: Catalogue, objectives: Mapping[str, Objective]) -> "Material":
        """`catalogues`: by number of the cut; `names`: whose category codes are used."""
        begins = np.cumsum([0, *(len(catalogue) for catalogue in catalogues)])
        item = examples.item + np.repeat(begins[examples.cut], examples.size)
        features = np.concatenate([np.asarray(catalogue.features) for catalogue in catalogues])
        check_finite(examples, features)
        codes = np.concatenate([item_codes(catalogue, names) for catalogue in catalogues])
        return cls(examples, np.cumsum(examples.size), item, features, codes, Heads.of(objectives).judging(examples.seen))

    def of_cuts(self, first: int, last: int) -> NDArray[np.intp]:
        """The queries of the cuts from `first` on, before `last`."""
        return np.flatnonzero((self.examples.cut >= first) & (self.examples.cut < last))

    def rows_of(self, queries: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The examples of these queries, end to end, and which of the given queries each belongs to."""
        lengths = self.examples.size[queries]
        group = np.repeat(np.arange(len(queries)), lengths)
        shift = np.repeat(self.ends[queries] - np.cumsum(lengths), lengths)
        return np.arange(len(group)) + shift, group


def check_finite(examples: Examples, items: Floats) -> None:
    """Raise `ValueError` naming a number of the examples or of the items' features (I, Fi) that is none."""
    for name in ("cross", "outcome", "weight"):
        _refuse_unknown(f"examples' {name}", getattr(examples, name), unknown=False)
    _refuse_unknown("examples' request features", examples.request, unknown=True)
    _refuse_unknown("items' features", items, unknown=True)


def _refuse_unknown(what: str, values: NDArray[np.floating], unknown: bool) -> None:
    """Raise `ValueError` naming the first number that is none; `unknown`: NaN stands for what is not known."""
    wrong = np.isinf(values) if unknown else ~np.isfinite(values)
    if wrong.any():
        at = tuple(int(place) for place in np.unravel_index(int(wrong.argmax()), wrong.shape))
        raise ValueError(f"{what} hold {values[at]} at {list(at)}, expected a finite number: see which column of the cut's features it is")


@dataclass(frozen=True)
class Fitting:
    """How a ranker is fitted."""

    epochs: int = 6
    least_steps: int = 150  # more epochs where the examples are few
    queries: int = 24  # in a batch
    rate: float = 2e-3
    decay: float = 1e-4  # of weights
    seed: int = 0
    diversity: DiversityTerm | None = None


def deterministic(seed: int) -> None:
    """The same weights from the same examples and seed, on the same kind of machine. One thread: several networks learn side by side."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def fit(
    sizes: Sizes,
    material: Material,
    queries: NDArray[np.intp],
    fitting: Fitting,
    objectives: Sequence[Objective],
    told: Callable[[float], None] = lambda loss: None,
    start: Ranker | None = None,
    together: Together = ALONE,
) -> Ranker:
    """A ranker fitted on the given queries, from new weights or from those of `start`. `told` hears each epoch's mean loss.

    `together`: one of several processes that fit it (`components/together.py`).
    """
    deterministic(fitting.seed)
    model = start or Ranker(sizes)
    if start is None:  # what was learnt before means what it meant
        standardise(model, material, queries)
        begin_slots(model, material, queries)
    optimizer = _optimizer(model, fitting)
    rng = np.random.default_rng(fitting.seed)
    batches = -(-len(queries) // fitting.queries)
    epochs = max(fitting.epochs, -(-fitting.least_steps // batches))
    rates, steps = [group["lr"] for group in optimizer.param_groups], epochs * batches + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.1)
    loss_of = together.wrapped(LossOf(model, lambda ranker, own: batch_loss(ranker, material, own, objectives, fitting.diversity)))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done, means = together.go_on(rng, **parts)
    model.train()
    for epoch in range(done, epochs):
        losses = []
        for batch in np.array_split(rng.permutation(queries), batches):
            own, counts = together.share(batch)
            loss = loss_of(np.sort(own)) * counts
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(_finite(float(loss.detach()), objectives))
        means.append(together.mean(losses))
        together.keep(epoch + 1, means, rng, **parts)
    for mean in means:
        told(mean)
    return model.eval()


def _finite(loss: float, objectives: Sequence[Objective]) -> float:
    if not np.isfinite(loss):
        labels = ", ".join(one.label for one in objectives)
        raise ValueError(f"the loss of the heads {labels} is {loss}: a feature or value is out of all bounds, or the rate is too high")
    return loss


@torch.no_grad()
def begin_slots(model: Ranker, material: Material, queries: NDArray[np.intp]) -> None:
    """What a slot adds begins as its choices tell: what both place and item may explain is the place's until items prove it theirs.

    From nothing, the items' many weights took it first and held it: of a bias of .53 on a made platform .47 was left after 150 steps, and
    .10 is so.
    """
    at, _ = material.rows_of(queries)
    slot = material.examples.slot[at]
    for h in range(model.slots.shape[1]):
        own = material.judging[at, h] & (slot > 0)
        came = material.examples.outcome[at[own], h] > 0
        shown, chosen = (np.bincount(slot[own][some], minlength=SLOTS) for some in (came >= 0, came))
        odds = np.log((chosen + came.mean() + 1e-3) / (shown - chosen + 1)) if own.any() else np.zeros(SLOTS)
        usual = np.log((chosen.sum() + 1e-3) / (shown.sum() - chosen.sum() + 1)) if own.any() else 0.0
        model.slots[:, h] = torch.from_numpy(np.where(shown > 0, odds - usual, 0.0))


def _optimizer(model: Ranker, fitting: Fitting) -> torch.optim.Optimizer:
    """Adam, each kind of weight with its decay. A slot's few numbers must run ahead of the weights, or those explain the slots."""
    weights = [parameter for name, parameter in model.named_parameters() if "embeddings" not in name and name != "slots"]
    return torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": fitting.decay},
            {"params": model.embeddings.parameters(), "weight_decay": 1e-2},
            {"params": [model.slots], "weight_decay": 0.0, "lr": AHEAD * fitting.rate},
        ],
        lr=fitting.rate,
    )


def standardise(model: Ranker, material: Material, queries: NDArray[np.intp]) -> None:
    """Means and deviations of what the ranker will read, from at most 200,000 examples."""
    at, _ = material.rows_of(queries[:: max(1, len(queries) // 800)])
    at = at[:: max(1, len(at) // 200_000)]
    model.request_norm.fit(material.examples.request[queries])
    model.item_norm.fit(material.items[material.item[at]])
    model.cross_norm.fit(material.examples.cross[at].astype(np.float32))


def logits_of(
    model: Ranker, material: Material, queries: NDArray[np.intp], as_shown: bool = False
) -> tuple[Tensor, NDArray[np.intp], NDArray[np.intp]]:
    """(N, H) the logits of each example, its row in the examples, its query's position.

    `as_shown`: with what its slot adds. An item is chosen because it is wanted and because it was seen; learning tells the two apart by a
    term of the slot alone (Zhao et al. 2019, https://doi.org/10.1145/3298689.3346997), and answers are made without it.
    """
    at, group = material.rows_of(queries)
    user = model.user(torch.from_numpy(material.examples.request[queries])).index_select(0, torch.from_numpy(group))  # (N, H)
    items, inverse = np.unique(material.item[at], return_inverse=True)
    halves = model.item(torch.from_numpy(material.items[items]), torch.from_numpy(material.codes[items]).long())
    cross = torch.from_numpy(material.examples.cross[at].astype(np.float32))
    logits = model.score(user, halves.index_select(0, torch.from_numpy(inverse)), cross)
    slot = material.examples.slot[at]
    if as_shown and slot.any():
        added = torch.cat((model.slots.new_zeros(1, model.slots.shape[1]), model.slots[1:]))  # what was not shown stays as it is
        logits = logits + added[torch.from_numpy(slot.astype(np.int64))]
    return logits, at, group


def batch_loss(
    model: Ranker, material: Material, queries: NDArray[np.intp], objectives: Sequence[Objective], diversity: DiversityTerm | None = None
) -> Tensor:
    """Mean weighted loss a query of every head over the items it judges, plus the list-wise parts, and what lists have of one kind."""
    logits, at, group = logits_of(model, material, queries, as_shown=True)
    weight, outcome = torch.from_numpy(material.examples.weight[at]), torch.from_numpy(material.examples.outcome[at])
    judging = torch.from_numpy(material.judging[at])  # (N, H)
    losses = torch.stack([head_loss(one, logits[:, h], outcome[:, h]) for h, one in enumerate(objectives)], dim=1)
    loss = (torch.where(judging, losses, 0.0).sum(dim=1) * weight).sum() / (10.0 * len(queries))
    for h, one in enumerate(objectives):
        if one.listwise:
            own = torch.nonzero(judging[:, h])[:, 0]
            lists = list_loss(logits[own, h], outcome[own, h], weight[own], torch.from_numpy(group)[own], len(queries))
            loss = loss + one.loss_weight * one.listwise * lists
    if diversity and diversity.weight:
        weights = torch.tensor([one.weight for one in objectives])
        kinds = torch.from_numpy(material.codes[material.item[at], GROUPS.index(diversity.per)].astype(np.int64))
        said = mean_logit(logits, judging, weights)
        loss = loss + diversity.weight * sameness(said, weight, kinds, torch.from_numpy(group), len(queries))
    return loss


def head_loss(one: Objective, logits: Tensor, outcome: Tensor) -> Tensor:
    """(N,) the loss of each example for one head.

    Weighted logistic loss (Covington et al. 2016, https://doi.org/10.1145/2959100.2959190) counts an example as many times as chosen as its
    value says, and here always once as not chosen, so that the odds are the expected value itself.
    """
    if one.loss == "weighted":
        softplus = torch.nn.functional.softplus
        return one.loss_weight * (outcome * softplus(-logits) + softplus(logits))
    return one.loss_weight * torch.nn.functional.binary_cross_entropy_with_logits(logits, outcome, reduction="none")


def list_loss(logits: Tensor, label: Tensor, weight: Tensor, group: Tensor, groups: int) -> Tensor:
    """Cross-entropy between a list's labels and the softmax of its logits, averaged over the lists that have a label."""
    top = torch.full((groups,), -torch.inf).scatter_reduce(0, group, logits.detach(), "amax")
    total = torch.zeros(groups).index_add(0, group, weight * torch.exp(logits - top[group]))
    each = (torch.log(total[group]) + top[group] - logits) * label
    count = torch.zeros(groups).index_add(0, group, label)
    lists = torch.zeros(groups).index_add(0, group, each) / count.clamp(min=1.0)
    return lists.sum() / max(int((count > 0).sum()), 1)


@torch.no_grad()
def predict(model: Ranker, material: Material, queries: NDArray[np.intp]) -> NDArray[np.float32]:
    """(N, H) logits of all examples of these queries, end to end."""
    return np.concatenate([logits_of(model, material, queries[begin : begin + 64])[0].numpy() for begin in range(0, len(queries), 64)])
