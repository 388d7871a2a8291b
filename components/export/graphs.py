"""The four graphs of a release, cut out of the learnt networks: once a request, once a release, once a candidate.

Shapes: C candidates, n items, Fr request features, Fu user features, Fi item features, Fx cross features, H hidden, D embedding,
T token slots, L code columns.
"""

import torch
from torch import Tensor, nn

from components.export.onnx import to_onnx
from components.ranking.model import Ranker
from components.retrieval.towers import Towers
from serving.content import NUMBERS, TOKENS
from serving.features import REQUEST_FEATURES


class Request(nn.Module):
    """Request features (1, Fr) and, with towers, history bag (1, D) -> light half, heavy half, user vector."""

    def __init__(self, light: Ranker, heavy: Ranker, towers: Towers | None) -> None:
        super().__init__()
        self.light, self.heavy = light, heavy
        self.tower = None if towers is None else towers.user

    def forward(self, features: Tensor, bag: Tensor | None = None) -> tuple[Tensor, ...]:
        halves = (self.light.user(features), self.heavy.user(features))
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
