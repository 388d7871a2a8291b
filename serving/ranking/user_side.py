"""The user's side of all models, made once a request: features standardised here, then `request.onnx`, or a compiled loop in its place.

Standardising is not in the graph because runtimes take logarithms each in their own way: here numpy takes them on both paths, and what is
left of the graph is products and sums, whose order the loop keeps (see `serving/ranking/layers.py`).
Shapes: Fr request features, Fu of them the user's own (the last), D embedding, H hidden of both rankers together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held
from serving.native import kernel

SHORTEST = np.float32(1e-12)  # of a vector that is brought to length one
_TRIED = 5  # made-up users


@dataclass(frozen=True)
class Standard(ArrayFolder):
    """What the request features looked like while the models learnt."""

    mean: Annotated[NDArray[np.float32], Held("F")]  # (Fr,)
    scale: Annotated[NDArray[np.float32], Held("F")]  # (Fr,) one over the deviation; 0: never varied
    log_mean: Annotated[NDArray[np.float32], Held("F")]  # (Fr,) of the signed logarithms
    log_scale: Annotated[NDArray[np.float32], Held("F")]  # (Fr,)
    own_mean: Annotated[NDArray[np.float32], Held("U")]  # (Fu,) as the user tower learnt them; (0,) without a tower
    own_spread: Annotated[NDArray[np.float32], Held("U")]  # (Fu,)
    clip: float  # deviations beyond this say no more

    def whole(self, features: Floats) -> Floats:
        """(Fr,) the features, those missing at the end as NaN."""
        row = np.full(len(self.mean), np.nan, np.float32)
        row[: len(features)] = features
        return row

    def inputs(self, features: Floats) -> Floats:
        """(1, 3 Fr + Fu): each feature plain, as its signed logarithm, and whether it is missing; then the user's own for the tower."""
        row = self.whole(features)
        missing = np.isnan(row)
        known, absent = np.where(missing, self.mean, row), missing.astype(np.float32)
        plain = np.clip((known - self.mean) * self.scale, -self.clip, self.clip)
        signed = np.sign(known) * np.log(np.abs(known) + 1)
        logs = np.clip((signed - self.log_mean) * self.log_scale, -self.clip, self.clip) * (1 - absent)
        first = len(row) - len(self.own_mean)
        own = np.where(missing[first:], np.float32(0), (row[first:] - self.own_mean) / self.own_spread)
        return np.concatenate((plain, logs, absent, own))[None]


@dataclass(frozen=True)
class UserLayers(ArrayFolder):
    """`request.onnx` as arrays. Without a tower its part is empty."""

    first: Annotated[NDArray[np.float32], Held("XH")]  # (3 Fr, H + H') both rankers' straight layers, then the first of their bent ones
    bias: Annotated[NDArray[np.float32], Held("H")]  # (H + H',)
    second: Annotated[NDArray[np.float32], Held("YZ")]  # (H', H)
    light: int  # of H, how many are the light ranker's
    own: Annotated[NDArray[np.float32], Held("Uh")]  # (Fu, h)
    own_bias: Annotated[NDArray[np.float32], Held("h")]  # (h,)
    top: Annotated[NDArray[np.float32], Held("hD")]  # (h, D)
    top_bias: Annotated[NDArray[np.float32], Held("D")]  # (D,)
    bag: Annotated[NDArray[np.float32], Held("DD")]  # (D, D)

    def sides(self, standard: Standard, features: Floats, bag: Floats | None) -> tuple[Floats, Floats, Floats] | None:
        """Light half (1, .), heavy half (1, .), vector (D,) of length one; None: not here, the graph must."""
        if (bag is None) != (not len(self.bag)):
            return None
        found = kernel.user_side(features, standard, self, bag)
        return None if found is None else (found[0][None, : self.light], found[0][None, self.light :], found[1])

    def agree(self, standard: Standard, graph: Callable[[Floats, Floats | None], tuple[Floats, Floats, Floats]]) -> bool:
        """Whether `graph` (features, bag) -> the same three gives the same bits, on made-up users."""
        random = np.random.default_rng(0)
        for _ in range(_TRIED):
            features = (standard.mean + random.normal(size=len(standard.mean)) * 3).astype(np.float32)
            features[random.random(len(features)) < 0.1] = np.nan
            bag = random.normal(size=len(self.bag)).astype(np.float32) if len(self.bag) else None
            found = self.sides(standard, features, bag)
            if found is None or not all(map(np.array_equal, found, graph(features, bag))):
                return False
        return True


def of_length_one(vector: Floats) -> Floats:
    """(D,)"""
    length = np.sqrt((vector * vector).sum())
    return np.asarray(vector / np.maximum(length, SHORTEST), np.float32)
