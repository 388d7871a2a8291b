"""How alike the top of a list is, as a term of the loss: the chance that two items drawn by the list's softmax are of one group.

    D = mean over queries of sum over groups of (sum of p_i of the group's items)^2,    p = softmax of the list's logits

Simpson's index (Simpson 1949, https://doi.org/10.1038/163688a0) of a soft list: 1 where everything near the top is of one group, one over
their number where groups have equal parts. Smooth in every logit: dD/dlogit_i = 2 p_i (m_i - D), with m_i the mass of i's group, so an
item is pushed down as far as its group has more of the list than the list's average group. Shapes: N examples, H heads, Q queries.
"""

import torch
from torch import Tensor


def sameness(logits: Tensor, weight: Tensor, kind: Tensor, group: Tensor, groups: int) -> Tensor:
    """D of `groups` queries. `logits`, `weight`, `kind`, `group` (N,): what the list is ordered by, how many candidates an example stands
    for, its group of items (0, unknown: a group of its own), its query."""
    top = torch.full((groups,), -torch.inf).scatter_reduce(0, group, logits.detach(), "amax")
    raw = weight * torch.exp(logits - top[group])
    share = raw / torch.zeros(groups).index_add(0, group, raw)[group]
    alone = torch.where(kind == 0, -1 - torch.arange(len(kind)), kind)
    _, cell = torch.unique(torch.stack((group, alone)), dim=1, return_inverse=True)
    mass = torch.zeros(int(cell.max()) + 1 if len(cell) else 0).index_add(0, cell, share)
    return (mass**2).sum() / max(groups, 1)


def mean_logit(logits: Tensor, judging: Tensor, weights: Tensor) -> Tensor:
    """(N,) of logits (N, H) the mean over the heads that judge each example, by their weights (H,) in the score."""
    shares = torch.where(judging, weights, 0.0)
    return (shares * logits).sum(dim=1) / shares.sum(dim=1).clamp(min=1e-9)
