"""Logits to probabilities that mean what they say, so that the two heads may share one list.

Platt scaling (Platt 1999) of each head on the weeks the ranker did not learn from: p = sigmoid(a * logit + b). The scaling is folded into
the last layer, so the exported graph answers calibrated logits and nothing else has to be shipped.

Newton's steps are written out, though scipy has them: of 300 made-up weeks `minimize` (trust-exact) gave another float32 in 17, `root` in
3, and a bundle is named by its bytes.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from components.ranking.model import HEADS, Ranker

Scaling = tuple[tuple[float, float], ...]  # (a, b) of each head
UNSCALED: Scaling = ((1.0, 0.0),) * len(HEADS)


def platt(logits: NDArray[np.float32], label: NDArray[np.bool_], weight: NDArray[np.float32], rounds: int = 25) -> tuple[float, float]:
    """(a, b) of the weighted log-loss' minimum, by Newton's method with halved steps; (1, 0) where a class is missing.

    One example's worth of belief in (1, 0) keeps the answer finite where the classes can be told apart without a mistake.
    """
    if label.all() or not label.any():
        return 1.0, 0.0
    features = np.column_stack((logits, np.ones(len(logits)))).astype(np.float64)
    start = np.array([1.0, 0.0])

    def loss(solution: NDArray[np.float64]) -> float:
        margin = np.where(label, 1.0, -1.0) * (features @ solution)
        return float(weight @ np.logaddexp(0.0, -margin) + 0.5 * ((solution - start) ** 2).sum())

    solution, reached = start, loss(start)
    for _ in range(rounds):
        chance = np.exp(-np.logaddexp(0.0, -(features @ solution)))
        gradient = features.T @ (weight * (chance - label)) + solution - start
        curve = (features * (weight * chance * (1 - chance))[:, None]).T @ features + np.eye(2)
        step = np.linalg.solve(curve, gradient)
        while (tried := loss(solution - step)) > reached and np.abs(step).max() > 1e-9:
            step = step / 2
        if tried > reached:
            break
        solution, reached = solution - step, tried
    return float(np.clip(solution[0], 0.1, 10.0)), float(solution[1])


def scaling_of(logits: NDArray[np.float32], seen: NDArray[np.bool_], label: NDArray[np.bool_], weight: NDArray[np.float32]) -> Scaling:
    """(a, b) of the repeat and of the discover head, from examples that chose their own head by `seen`."""
    return tuple(platt(logits[part], label[part], weight[part]) for part in (seen, ~seen))


@torch.no_grad()
def fold(model: Ranker, scaling: Scaling) -> Ranker:
    """The same ranker with its heads scaled: logit' = a * logit + b, in the last layer's weights."""
    last = model.top[-1]
    a, b = (torch.tensor(column, dtype=last.weight.dtype) for column in zip(*scaling, strict=True))
    last.weight.mul_(a[:, None])
    last.bias.mul_(a).add_(b)
    return model
