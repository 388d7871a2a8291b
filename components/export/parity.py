"""Does a graph answer like the network it was cut from? The requests that both are asked.

Shapes: Q requests, C candidates a request, Fx cross features, H hidden.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from components.export.graphs import user_half
from components.ranking.model import Ranker
from serving.bundle.arrays import Floats
from serving.bundle.onnx import open_session
from serving.ranking.rankers import score


@dataclass(frozen=True)
class ParityCase:
    """One request's rows as a ranker gets them."""

    request: Floats  # (Fr,)
    features: Floats  # (C, Fi)
    codes: NDArray[np.int32]  # (C, 4)
    cross: Floats  # (C, Fx)
    seen: NDArray[np.bool_]  # (C,)
    label: NDArray[np.bool_]  # (C,)
    outcome: Floats  # (C, heads) what came of each


PER_CANDIDATE = ("features", "codes", "cross", "seen", "label", "outcome")


def torch_logits(model: Ranker, asked: ParityCase) -> Floats:
    """The whole network at once, nothing precomputed: (C, heads)."""
    with torch.no_grad():
        given = (asked.request[None], asked.features, asked.codes.astype(np.int64), asked.cross)
        return model(*(torch.from_numpy(np.array(part)) for part in given)).numpy()


def halves(model: Ranker, asked: ParityCase) -> tuple[Floats, Floats]:
    """The user half (1, H) and the item halves (C, H)."""
    with torch.no_grad():
        return user_half(model, torch.from_numpy(asked.request[None])).numpy(), item_halves(model, asked.features, asked.codes)


def item_halves(model: Ranker, features: Floats, codes: NDArray[np.int32]) -> Floats:
    """(n, H) of items with these features (n, Fi) and codes (n, 4)."""
    with torch.no_grad():
        given = (torch.from_numpy(np.array(features)), torch.from_numpy(codes.astype(np.int64)))
        return np.asarray(model.item(*given).numpy())


def graph_logits(graph: bytes, model: Ranker, requests: list[ParityCase], dtype: type = np.float32) -> list[Floats]:
    """Logits of the graph, with item halves stored as `dtype`."""
    session = open_session(graph)
    answers = []
    for asked in requests:
        user, items = halves(model, asked)
        answers.append(score(session, user + items.astype(dtype).astype(np.float32), asked.cross))
    return answers


def ndcg_of(label: NDArray[np.bool_], depth: int) -> float:
    """NDCG of a list whose items were wanted or not, at as many as are kept."""
    depth = min(depth, len(label))
    gains = 1 / np.log2(np.arange(2, depth + 2))
    top = label[:depth]
    ideal = gains[: min(depth, int(label.sum()))].sum()
    return float(gains[: len(top)][top].sum() / ideal) if ideal else 0.0
