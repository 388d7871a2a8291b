"""The four graphs of a release, cut out of the learnt networks: once a request, once a release, once a candidate.

Shapes: C candidates, n items, Fr request features, Fu user features, Fi item features, Fx cross features, H hidden, D embedding,
T token slots, L code columns.
"""

import numpy as np
import torch
from torch import Tensor, nn

from components.export.onnx import to_onnx
from components.ranking.model import CLIP, Ranker
from components.retrieval.towers import Towers
from serving.content import NUMBERS, TOKENS
from serving.features import REQUEST_FEATURES
from serving.layers import Layers


class Request(nn.Module):
    """Request features (1, Fr) and, with towers, history bag (1, D) -> light half, heavy half, user vector.

    The halves are `user_half` of each ranker, their layers side by side in one: a graph of half the nodes, which are what a request of
    one row costs. Raises `ValueError` for rankers that standardise a request differently.
    """

    def __init__(self, light: Ranker, heavy: Ranker, towers: Towers | None) -> None:
        super().__init__()
        if any(not torch.equal(a, b) for a, b in zip(light.request_norm.buffers(), heavy.request_norm.buffers(), strict=True)):
            raise ValueError("the rankers standardise request features differently: train them together, on the same requests")
        self.norm = light.request_norm
        self.widths = (light.sizes.hidden[0], heavy.sizes.hidden[0])
        sides = (light.user_side, heavy.user_side)
        straight = [side.straight.weight for side in sides]
        bent = [side.bent[0] for side in sides]
        self.first = nn.Parameter(torch.cat((*straight, *(layer.weight for layer in bent))).T.contiguous())
        biases = [
            side.straight.bias + side.bent[2].bias + ranker.cross_side.bias for side, ranker in zip(sides, (light, heavy), strict=True)
        ]
        self.bias = nn.Parameter(torch.cat((*biases, *(layer.bias for layer in bent))))
        self.second = nn.Parameter(torch.block_diag(*(side.bent[2].weight for side in sides)).T.contiguous())
        self.tower = None if towers is None else towers.user

    def forward(self, features: Tensor, bag: Tensor | None = None) -> tuple[Tensor, ...]:
        hidden = torch.addmm(self.bias, self.norm(features), self.first)
        split = sum(self.widths)
        both = torch.addmm(hidden[:, :split], torch.relu(hidden[:, split:]), self.second)
        halves = (both[:, : self.widths[0]], both[:, self.widths[0] :])
        return halves if self.tower is None else (*halves, self.tower(features[:, len(REQUEST_FEATURES) :], bag))


class Item(nn.Module):
    """Item features (n, Fi), codes (n, L) and, with towers, content (n, T) (n, F) -> light half, heavy half, item vector, history row.

    The vector is made from content alone: this graph answers for items posted since the release, those of the catalogue have a table.
    """

    def __init__(self, light: Ranker, heavy: Ranker, towers: Towers | None, length: float) -> None:
        super().__init__()
        self.light, self.heavy, self.length = light, heavy, length
        self.tower = None if towers is None else towers.item

    def forward(self, features: Tensor, codes: Tensor, tokens: Tensor | None = None, numbers: Tensor | None = None) -> tuple[Tensor, ...]:
        halves = (self.light.item(features, codes), self.heavy.item(features, codes))
        if self.tower is None:
            return halves
        vector = self.tower(tokens, numbers)
        return (*halves, vector, vector * self.length)


class Candidate(nn.Module):
    """User half plus item half (C, H), cross features (C, Fx) -> logits (C, 2)."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, halves: Tensor, cross: Tensor) -> Tensor:
        ranker = self.ranker
        hidden = torch.addmm(halves, ranker.cross_norm(cross), ranker.cross_side.weight.T)
        return ranker.top(torch.relu(hidden))


def user_half(ranker: Ranker, request: Tensor) -> Tensor:
    """(B, Fr) -> (B, H): the user's side and the bias of the layer that all sides meet in, so that a candidate's row adds no bias."""
    return ranker.user(request) + ranker.cross_side.bias


def candidate_graph(ranker: Ranker) -> bytes:
    """light.onnx or heavy.onnx."""
    width, cross = ranker.sizes.hidden[0], ranker.sizes.cross
    inputs = {"halves": torch.zeros(3, width), "cross": torch.zeros(3, cross)}
    return to_onnx(Candidate(ranker), inputs, ["logits"], ["halves", "cross", "logits"])


def layers_of(ranker: Ranker) -> Layers:
    """The candidate graph as arrays."""
    linear = [ranker.cross_side, *(module for module in ranker.top if isinstance(module, nn.Linear))]
    first, *more = [layer.weight.detach().numpy().T for layer in linear]
    parts = [first.ravel()]
    for weight, layer in zip(more, linear[1:], strict=True):
        parts += [weight.ravel(), layer.bias.detach().numpy()]
    norm = ranker.cross_norm
    return Layers(
        mean=norm.mean.numpy(),
        scale=norm.scale.numpy(),
        weights=np.concatenate(parts).astype(np.float32),
        sizes=np.array([first.shape[0], first.shape[1], *(weight.shape[1] for weight in more)], np.int64),
        clip=CLIP,
    )


def request_graph(light: Ranker, heavy: Ranker, towers: Towers | None) -> bytes:
    """request.onnx."""
    inputs = {"features": torch.zeros(1, light.sizes.request)}
    if towers is None:
        return to_onnx(Request(light, heavy, None), inputs, ["light", "heavy"], [])
    inputs["bag"] = torch.zeros(1, towers.config.dimensions)
    return to_onnx(Request(light, heavy, towers), inputs, ["light", "heavy", "vector"], [])


def item_graph(light: Ranker, heavy: Ranker, towers: Towers | None, length: float = 1.0) -> bytes:
    """item.onnx, for any number of items at once. `length`: of a usual row of the history bag."""
    inputs = {"features": torch.zeros(3, light.sizes.item), "codes": torch.zeros(3, len(light.sizes.codes), dtype=torch.int64)}
    outputs = ["light", "heavy"]
    if towers is not None:
        inputs |= {"tokens": torch.zeros(3, TOKENS, dtype=torch.int64), "numbers": torch.zeros(3, NUMBERS)}
        outputs += ["vector", "history"]
    return to_onnx(Item(light, heavy, towers, length), inputs, outputs, [*inputs, *outputs])
