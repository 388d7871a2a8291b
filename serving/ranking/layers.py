"""A ranker's layers as arrays, for the compiled loop that runs in the place of its ONNX graph where it gives the same bits.

The graph stays what counts: `Layers.agree` tries both on made-up candidates when a bundle is loaded, and where a single bit differs
(another kind of CPU, a quantised graph) the graph runs. Shapes: C candidates, I items, Fx cross features, H hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held, Rows
from serving.native import kernel

_TRIED = (1, 16, 61)  # candidates
_PANEL = 16  # outputs side by side, as in native/rank.c


@dataclass(frozen=True)
class Layers(ArrayFolder):
    """One ranker from its cross features on."""

    mean: Annotated[NDArray[np.float32], Held("F")]  # (Fx,)
    scale: Annotated[NDArray[np.float32], Held("F")]  # (Fx,)
    weights: Annotated[
        NDArray[np.float32], Held("W")
    ]  # the cross layer's (Fx, H); then of each layer on top its weights (inputs, outputs) and its bias
    sizes: Annotated[NDArray[np.int64], Held("L", 1, 1 << 16)]  # Fx, H, and what each layer on top gives; the last is the number of heads
    clip: float  # standardised features are clipped to +- this

    @cached_property
    def panels(self) -> NDArray[np.float32]:
        """`weights` as the loop reads them: of each layer panels (inputs, 16) of its outputs, the last filled up with zeros; its bias."""
        parts, at = [], 0
        for number, (inputs, outputs) in enumerate(pairwise(self.sizes.tolist())):
            lines = inputs + (number > 0)  # all but the first layer have a bias
            part = self.weights[at : at + lines * outputs].reshape(lines, outputs)
            part = np.pad(part, ((0, 0), (0, -outputs % _PANEL)))
            parts += [part[:inputs].reshape(inputs, -1, _PANEL).swapaxes(0, 1).ravel(), part[inputs:].ravel()]
            at += lines * outputs
        return np.concatenate(parts)

    def score(self, halves: NDArray[np.floating], rows: Rows, user: Floats, cross: Floats, at: Rows | None = None) -> Floats | None:
        """Logits (C, heads) from item halves (I, H), the user's half (H,) and cross features (C, Fx); None: not here, the graph must.

        `at` (K,): positions of those that are asked about.
        """
        return kernel.rank(self, halves, rows, at, user, cross)

    def agree(self, graph: Callable[[Floats, Floats], Floats]) -> bool:
        """Whether `graph` (halves (C, H), cross (C, Fx)) -> logits gives the same bits."""
        random = np.random.default_rng(0)
        inputs, width = self.sizes[:2].tolist()
        for count in _TRIED:
            halves = random.normal(size=(count, width)).astype(np.float16)
            cross = (self.mean + random.normal(size=(count, inputs)) * 2).astype(np.float32)
            user = random.normal(size=width).astype(np.float32)
            found = self.score(halves, np.arange(count, dtype=np.int32), user, cross)
            if found is None or not np.array_equal(found, graph(halves.astype(np.float32) + user, cross)):
                return False
        return True
