"""The rankers: one network shape, light and heavy by its sizes, linear in [user | item | cross] up to the first activation.

    z = U(request) + V(item) + W(cross)        user half once a request, item half once a release, only W(cross) per candidate
    logits = MLP(relu(z))                      a head for each of the system's objectives (`serving/objectives.py`)

U and V may be deep (they cost nothing while ranking); splitting the first layer is worth 6x (measured). They are a straight path and a bent
one, or the system's towers (batch norm, ReLU, dropout); what tells of the pair may go through layers of its own before it meets them.
Shapes: C candidates, Fr request features, Fi item features, Fx cross features, H hidden, L code columns.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.ranking.fitted import SLOTS

FIRST_HEADS = ("repeat: again positive", "discover: first positive")  # of rankers saved before heads were the system's
CLIP = 5.0  # standard deviations


@dataclass(frozen=True)
class Sizes:
    """What the network is made of."""

    request: int  # Fr
    item: int  # Fi
    cross: int  # Fx
    codes: tuple[int, ...]  # size of each code column: categories three times, brands
    hidden: tuple[int, ...]  # first: width of the halves; then the layers above
    heads: tuple[str, ...]  # the logits' columns, each as "name: label"
    side: int = 64  # width inside U and V
    embedding: int = 4  # numbers a code
    towers: tuple[int, ...] = ()  # layers inside U and V in the place of `side`
    context: tuple[int, ...] = ()  # layers of the cross features before W
    dropout: float = 0.0  # in the towers, while learning


class Standardise(nn.Module):
    """Columns to mean 0 and deviation 1; NaN becomes 0, and so does a column that never varied while learning.

    `wide`: each column also as its signed logarithm, and whether it was missing (three columns out for one in); else none may be NaN.
    """

    def __init__(self, columns: int, wide: bool) -> None:
        super().__init__()
        self.wide = wide
        for name in ("mean", "scale", "log_mean", "log_scale"):
            self.register_buffer(name, torch.zeros(columns))

    @property
    def out(self) -> int:
        return len(self.mean) * (3 if self.wide else 1)

    def fit(self, values: NDArray) -> None:
        """Mean and deviation of (N, F) values, NaN left out."""
        plain = np.asarray(values, np.float64)
        for prefix, column in (("", plain), ("log_", np.sign(plain) * np.log1p(np.abs(plain)))):
            mean, scale = _moments(column)
            getattr(self, f"{prefix}mean").copy_(torch.as_tensor(mean, dtype=torch.float32))
            getattr(self, f"{prefix}scale").copy_(torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        if not self.wide:
            return ((values - self.mean) * self.scale).clamp(-CLIP, CLIP)
        missing = torch.isnan(values)
        known = torch.where(missing, self.mean, values)
        plain = ((known - self.mean) * self.scale).clamp(-CLIP, CLIP)
        logs = (torch.sign(known) * torch.log1p(torch.abs(known)) - self.log_mean) * self.log_scale
        present = 1.0 - missing.float()
        return torch.cat((plain, logs.clamp(-CLIP, CLIP) * present, missing.float()), dim=-1)


def _moments(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = np.isfinite(columns)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, columns, 0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, columns - mean, 0) ** 2).sum(axis=0) / count)
    return mean, np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 0.0)


class Ranker(nn.Module):
    """One ranker; `user`, `item` and `score` are exported apart, `forward` is the three together."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.hidden[0]
        self.request_norm = Standardise(sizes.request, wide=True)
        self.item_norm = Standardise(sizes.item, wide=True)
        self.cross_norm = Standardise(sizes.cross, wide=False)
        self.embeddings = nn.ModuleList(nn.Embedding(size, sizes.embedding) for size in sizes.codes)
        for table in self.embeddings:
            nn.init.normal_(table.weight, std=0.05)
        self.user_side = _side(self.request_norm.out, sizes)
        self.item_side = _side(self.item_norm.out + sizes.embedding * len(sizes.codes), sizes)
        self.context = nn.Sequential(*_bent(self.cross_norm.out, sizes.context))
        self.cross_side = nn.Linear((self.cross_norm.out, *sizes.context)[-1], width)
        self.slots = nn.Parameter(torch.zeros(SLOTS, len(sizes.heads)))  # log-odds that being shown at a slot adds: while learning only
        self.top = nn.Sequential(*_bent(width, sizes.hidden[1:]), nn.Linear(sizes.hidden[-1], len(sizes.heads)))

    def user(self, request: Tensor) -> Tensor:
        """(B, Fr) -> (B, H)."""
        return self.user_side(self.request_norm(request))

    def item(self, features: Tensor, codes: Tensor) -> Tensor:
        """(B, Fi), (B, L) -> (B, H)."""
        return self.item_side(self.item_inputs(features, codes))

    def item_inputs(self, features: Tensor, codes: Tensor) -> Tensor:
        """What V reads: features (B, Fi) as standardised, each code's numbers."""
        embedded = [table(_known(codes[:, column], table.num_embeddings)) for column, table in enumerate(self.embeddings)]
        return torch.cat((self.item_norm(features), *embedded), dim=-1)

    def score(self, user: Tensor, item: Tensor, cross: Tensor) -> Tensor:
        """User half (1 or C, H), item halves (C, H), cross features (C, Fx) -> logits (C, heads)."""
        return self.top(torch.relu(self.cross_side(self.context(self.cross_norm(cross))) + item + user))

    def forward(self, request: Tensor, features: Tensor, codes: Tensor, cross: Tensor) -> Tensor:
        return self.score(self.user(request), self.item(features, codes), cross)


def _known(codes: Tensor, size: int) -> Tensor:
    """Codes the network has a row for; others become 0, unknown."""
    return torch.where(codes < size, codes, torch.zeros_like(codes))


def _bent(inputs: int, widths: Sequence[int]) -> list[nn.Module]:
    """Layers with a ReLU after each."""
    layers: list[nn.Module] = []
    for inner, outer in pairwise((inputs, *widths)):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return layers


def _side(inputs: int, sizes: Sizes) -> nn.Module:
    """(B, inputs) -> (B, H): a tower, or a linear path and a bent one beside it."""
    outer = sizes.hidden[0]
    if sizes.towers:
        layers: list[nn.Module] = []
        for before, width in pairwise((inputs, *sizes.towers)):
            layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(sizes.dropout)]
        return nn.Sequential(*layers, nn.Linear(sizes.towers[-1], outer))
    return Beside(nn.Linear(inputs, outer), nn.Sequential(nn.Linear(inputs, sizes.side), nn.ReLU(), nn.Linear(sizes.side, outer)))


class Beside(nn.Module):
    """The sum of two modules of the same input."""

    def __init__(self, straight: nn.Module, bent: nn.Module) -> None:
        super().__init__()
        self.straight, self.bent = straight, bent

    def forward(self, values: Tensor) -> Tensor:
        return self.straight(values) + self.bent(values)


def save(model: Ranker, file: Path) -> None:
    """Sizes and weights in one file, the same bytes for the same weights."""
    buffer = io.BytesIO()  # straight to a file, its name would be among the bytes
    torch.save({"sizes": asdict(model.sizes), "weights": model.state_dict()}, buffer)
    file.write_bytes(buffer.getvalue())


def load(file: Path) -> Ranker:
    """The ranker `save` wrote, ready to answer."""
    saved = torch.load(file, weights_only=True)
    model = Ranker(Sizes(**{"heads": FIRST_HEADS, **saved["sizes"]}))
    model.load_state_dict({"slots": model.slots.detach(), **saved["weights"]})  # rankers of before knew none
    return model.eval()
