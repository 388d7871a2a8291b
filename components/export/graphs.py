"""The four graphs of a release, cut out of the learnt networks along the line between once a request, once a release and once a candidate."""

import torch
from torch import Tensor, nn

from components.export.onnx import to_onnx
from components.ranking.model import Ranker


class Request(nn.Module):
    """Request features (1, Fr) and, with a tower, history bag (1, D) -> light half, heavy half, user vector."""

    def __init__(self, light: Ranker, heavy: Ranker, tower: nn.Module | None) -> None:
        super().__init__()
        self.light, self.heavy, self.tower = light, heavy, tower

    def forward(self, features: Tensor, bag: Tensor | None = None) -> tuple[Tensor, ...]:
        halves = (self.light.user(features), self.heavy.user(features))
        return halves if self.tower is None else (*halves, self.tower(bag))


class Item(nn.Module):
    """Item features (n, Fi) and codes (n, 4) -> light half, heavy half and, with a tower, item vector and history embedding."""

    def __init__(self, light: Ranker, heavy: Ranker, tower: nn.Module | None) -> None:
        super().__init__()
        self.light, self.heavy, self.tower = light, heavy, tower

    def forward(self, features: Tensor, codes: Tensor) -> tuple[Tensor, ...]:
        halves = (self.light.item(features, codes), self.heavy.item(features, codes))
        return halves if self.tower is None else (*halves, *self.tower(features, codes))


class Candidate(nn.Module):
    """User half (1, H), item halves (C, H), cross features (C, Fx) -> logits (C, 2)."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, user: Tensor, item: Tensor, cross: Tensor) -> Tensor:
        return self.ranker.score(user, item, cross)


def candidate_graph(ranker: Ranker) -> bytes:
    """light.onnx or heavy.onnx."""
    width, cross = ranker.sizes.hidden[0], ranker.sizes.cross
    inputs = {"user": torch.zeros(1, width), "item": torch.zeros(3, width), "cross": torch.zeros(3, cross)}
    return to_onnx(Candidate(ranker), inputs, ["logits"], ["item", "cross", "logits"])


def request_graph(light: Ranker, heavy: Ranker, tower: nn.Module | None, dimensions: int) -> bytes:
    """request.onnx; the tower takes a bag of `dimensions`."""
    inputs = {"features": torch.zeros(1, light.sizes.request)}
    if tower is not None:
        inputs["bag"] = torch.zeros(1, dimensions)
    outputs = ["light", "heavy"] if tower is None else ["light", "heavy", "vector"]
    return to_onnx(Request(light, heavy, tower), inputs, outputs, [])


def item_graph(light: Ranker, heavy: Ranker, tower: nn.Module | None) -> bytes:
    """item.onnx, for any number of items at once."""
    inputs = {"features": torch.zeros(3, light.sizes.item), "codes": torch.zeros(3, len(light.sizes.codes), dtype=torch.int64)}
    outputs = ["light", "heavy"] if tower is None else ["light", "heavy", "vector", "history"]
    return to_onnx(Item(light, heavy, tower), inputs, outputs, [*inputs, *outputs])
