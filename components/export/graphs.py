"""The four graphs of a release, cut out of the learnt networks: once a request, once a release, once a candidate.

Shapes: C candidates, n items, Fr request features, Fu user features, Fi item features, Fx cross features, H hidden, D embedding,
T token slots, L code columns.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from components.export.onnx import to_onnx
from components.ranking.model import CLIP, Ranker
from components.retrieval.tower_model import Towers
from serving.bundle.arrays import Floats
from serving.bundle.content import NUMBERS, TOKENS
from serving.ranking.layers import Layers
from serving.ranking.user_side import Standard, UserLayers


class UserSideGraph(nn.Module):
    """Standardised features (1, 3 Fr + Fu) and, with towers, history bag (1, D) -> light half, heavy half, user vector of any length.

    The halves are `user_half` of each ranker, their layers side by side in one: a graph of half the nodes, which are what a request of
    one row costs. Raises `ValueError` for rankers that standardise a request differently.
    """

    def __init__(self, light: Ranker, heavy: Ranker, towers: Towers | None) -> None:
        super().__init__()
        check_alike(light, heavy)
        self.standard = light.request_norm.out
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

    def forward(self, inputs: Tensor, bag: Tensor | None = None) -> tuple[Tensor, ...]:
        hidden = torch.addmm(self.bias, inputs[:, : self.standard], self.first)
        split = sum(self.widths)
        both = torch.addmm(hidden[:, :split], torch.relu(hidden[:, split:]), self.second)
        halves = (both[:, : self.widths[0]], both[:, self.widths[0] :])
        if self.tower is None:
            return halves
        return (*halves, self.tower.bag(bag) + self.tower.features(inputs[:, self.standard :]))


class DeepUserSideGraph(nn.Module):
    """The same of rankers of which one has a deep tower: each side a network of its own."""

    def __init__(self, light: Ranker, heavy: Ranker, towers: Towers | None) -> None:
        super().__init__()
        check_alike(light, heavy)
        self.standard = light.request_norm.out
        self.rankers = nn.ModuleList((light, heavy))
        self.tower = None if towers is None else towers.user

    def forward(self, inputs: Tensor, bag: Tensor | None = None) -> tuple[Tensor, ...]:
        request = inputs[:, : self.standard]
        halves = tuple(ranker.user_side(request) + ranker.cross_side.bias for ranker in self.rankers)
        if self.tower is None:
            return halves
        return (*halves, self.tower.bag(bag) + self.tower.features(inputs[:, self.standard :]))


def check_alike(light: Ranker, heavy: Ranker) -> None:
    """Raise `ValueError` for rankers that standardise a request differently."""
    if any(not torch.equal(a, b) for a, b in zip(light.request_norm.buffers(), heavy.request_norm.buffers(), strict=True)):
        raise ValueError("the rankers standardise request features differently: train them together, on the same requests")


def is_flat(ranker: Ranker) -> bool:
    """Whether user and item are two layers, so that both rankers' run as one and there is a compiled loop for them."""
    return not ranker.sizes.towers


class ItemSideGraph(nn.Module):
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
    """User half plus item half (C, H), cross features (C, Fx) -> logits (C, heads)."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, halves: Tensor, cross: Tensor) -> Tensor:
        ranker = self.ranker
        hidden = torch.addmm(halves, ranker.context(ranker.cross_norm(cross)), ranker.cross_side.weight.T)
        return ranker.top(torch.relu(hidden))


class Whole(nn.Module):
    """Nothing made before: user (1, .) and items (C, .) as standardised, cross features (C, Fx) -> logits (C, heads).

    The network as it is drawn, run for every candidate: what all that is precomputed and compressed is measured against.
    """

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, user: Tensor, items: Tensor, cross: Tensor) -> Tensor:
        return self.ranker.score(self.ranker.user_side(user), self.ranker.item_side(items), cross)


def user_half(ranker: Ranker, request: Tensor) -> Tensor:
    """(B, Fr) -> (B, H): the user's side and the bias of the layer that all sides meet in, so that a candidate's row adds no bias."""
    return ranker.user(request) + ranker.cross_side.bias


def candidate_graph(ranker: Ranker) -> bytes:
    """light.onnx or heavy.onnx."""
    width, cross = ranker.sizes.hidden[0], ranker.sizes.cross
    inputs = {"halves": torch.zeros(3, width), "cross": torch.zeros(3, cross)}
    return to_onnx(Candidate(ranker), inputs, ["logits"], ["halves", "cross", "logits"])


def whole_graph(ranker: Ranker) -> bytes:
    """The network as drawn; it is measured and never served."""
    items = ranker.item_norm.out + ranker.sizes.embedding * len(ranker.sizes.codes)
    inputs = {"user": torch.zeros(1, ranker.request_norm.out), "items": torch.zeros(3, items), "cross": torch.zeros(3, ranker.sizes.cross)}
    return to_onnx(Whole(ranker), inputs, ["logits"], ["items", "cross", "logits"])


def layers_of(ranker: Ranker) -> Layers | None:
    """The candidate graph as arrays; None for a network of which there are none: one with layers before the sides meet."""
    if len(ranker.context):
        return None
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
    own = 0 if towers is None else towers.config.user_features
    inputs = {"inputs": torch.zeros(1, light.request_norm.out + own)}
    side = (UserSideGraph if is_flat(light) and is_flat(heavy) else DeepUserSideGraph)(light, heavy, towers)
    if towers is None:
        return to_onnx(side, inputs, ["light", "heavy"], [])
    inputs["bag"] = torch.zeros(1, towers.config.dimensions)
    return to_onnx(side, inputs, ["light", "heavy", "vector"], [])


def write_request(light: Ranker, heavy: Ranker, towers: Towers | None, out: Path) -> None:
    """request.onnx, request/ and, where both rankers are flat, layers/request/."""
    (out / "request.onnx").write_bytes(request_graph(light, heavy, towers))
    standard_of(light, towers).save(out / "request")
    if is_flat(light) and is_flat(heavy):
        user_layers_of(light, heavy, towers).save(out / "layers" / "request")


def standard_of(light: Ranker, towers: Towers | None) -> Standard:
    """request/: what the graph's inputs are made with."""
    norm, none = light.request_norm, np.empty(0, np.float32)
    return Standard(
        mean=norm.mean.numpy(),
        scale=norm.scale.numpy(),
        log_mean=norm.log_mean.numpy(),
        log_scale=norm.log_scale.numpy(),
        own_mean=none if towers is None else towers.user.mean.numpy(),
        own_spread=none if towers is None else towers.user.spread.numpy(),
        clip=CLIP,
    )


def user_layers_of(light: Ranker, heavy: Ranker, towers: Towers | None) -> UserLayers:
    """layers/request/: the graph as arrays."""
    request, none = UserSideGraph(light, heavy, towers), torch.empty(0, 0)
    tower = [none, none.ravel(), none, none.ravel(), none]
    if towers is not None:
        first, _, second = towers.user.features
        tower = [first.weight.T, first.bias, second.weight.T, second.bias, towers.user.bag.weight.T]
    own, own_bias, top, top_bias, bag = map(_array, tower)
    return UserLayers(
        first=_array(request.first),
        bias=_array(request.bias),
        second=_array(request.second),
        light=request.widths[0],
        own=own,
        own_bias=own_bias,
        top=top,
        top_bias=top_bias,
        bag=bag,
    )


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().numpy())


def item_graph(light: Ranker, heavy: Ranker, towers: Towers | None, length: float = 1.0) -> bytes:
    """item.onnx, for any number of items at once. `length`: of a usual row of the history bag."""
    inputs = {"features": torch.zeros(3, light.sizes.item), "codes": torch.zeros(3, len(light.sizes.codes), dtype=torch.int64)}
    outputs = ["light", "heavy"]
    if towers is not None:
        inputs |= {"tokens": torch.zeros(3, TOKENS, dtype=torch.int64), "numbers": torch.zeros(3, NUMBERS)}
        outputs += ["vector", "history"]
    return to_onnx(ItemSideGraph(light, heavy, towers, length), inputs, outputs, [*inputs, *outputs])
