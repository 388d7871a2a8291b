"""Logits to what they say: a probability, or for a weighted head an expected value, so that all heads may share one score.

Platt scaling (Platt 1999) of each head on the week the ranker did not learn from: p = sigmoid(a * logit + b), by the head's own loss. What
it is calibrated for: candidates that the sources retrieved for users of whom anything came in the days after a cut, and of those the ones
the head judges (`first`: not had before, `again`: had before). The scaling is folded into
the last layer, so the exported graph answers calibrated logits and nothing else has to be shipped. Shapes: N examples, H heads.

Newton's steps are written out, though scipy has them: of 300 made-up weeks `minimize` (trust-exact) gave another float32 in 17, `root` in
3, and a bundle is named by its bytes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from components.ranking.model import Ranker
from serving.objectives import Objective

Scaling = tuple[tuple[float, float], ...]  # (a, b) of each head


def platt(
    logits: NDArray[np.float32], came: NDArray[np.floating], stayed: NDArray[np.floating], weight: NDArray[np.float32], rounds: int = 25
) -> tuple[float, float]:  # fmt: skip
    """(a, b) of the least weighted logistic loss, by Newton's method with halved steps; (1, 0) where a class is missing.

    `came`, `stayed` (N,): how often each example counts as chosen and as not chosen. One example's worth of belief in (1, 0) keeps the
    answer finite where the classes can be told apart without a mistake.
    """
    if not came.any() or not stayed.any():
        return 1.0, 0.0
    features = np.column_stack((logits, np.ones(len(logits)))).astype(np.float64)
    start = np.array([1.0, 0.0])

    def loss(solution: NDArray[np.float64]) -> float:
        found = features @ solution
        losses = came * np.logaddexp(0.0, -found) + stayed * np.logaddexp(0.0, found)
        return float(weight @ losses + 0.5 * ((solution - start) ** 2).sum())

    solution, reached = start, loss(start)
    for _ in range(rounds):
        chance = np.exp(-np.logaddexp(0.0, -(features @ solution)))
        gradient = features.T @ (weight * ((came + stayed) * chance - came)) + solution - start
        curve = (features * (weight * chance * (1 - chance) * (came + stayed))[:, None]).T @ features + np.eye(2)
        step = np.linalg.solve(curve, gradient)
        while (tried := loss(solution - step)) > reached and np.abs(step).max() > 1e-9:
            step = step / 2
        if tried > reached:
            break
        solution, reached = solution - step, tried
    return float(np.clip(solution[0], 0.1, 10.0)), float(solution[1])


def scaling_of(
    objectives: Sequence[Objective],
    logits: NDArray[np.float32],
    judging: NDArray[np.bool_],
    outcome: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> Scaling:
    """(a, b) of each head, from the examples it judges. `logits`, `judging`, `outcome`: (N, H)."""
    found = []
    for h, one in enumerate(objectives):
        own = judging[:, h]
        came = outcome[own, h].astype(np.float64)
        found.append(platt(logits[own, h], came, np.ones_like(came) if one.loss == "weighted" else 1 - came, weight[own]))
    return tuple(found)


@torch.no_grad()
def fold(model: Ranker, scaling: Scaling) -> Ranker:
    """The same ranker with its heads scaled: logit' = a * logit + b, in the last layer's weights."""
    last = model.top[-1]
    a, b = (torch.tensor(column, dtype=last.weight.dtype) for column in zip(*scaling, strict=True))
    last.weight.mul_(a[:, None])
    last.bias.mul_(a).add_(b)
    return model
