"""Does a graph answer like the network it was cut from, and may its INT8 form be served?

Shapes: Q requests, C candidates a request, Fx cross features, H hidden.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.export.graphs import user_half
from components.ranking.model import Ranker
from serving.bundle.arrays import Floats
from serving.bundle.onnx import open_session
from serving.ranking.heads import Heads
from serving.ranking.rankers import score

LEAST_OVERLAP = 0.99  # of the kept set, INT8 with FP32
MOST_NDCG_LOST = 0.001
LEAST_SPEEDUP = 1.5  # a wide margin: below it the choice would hang on the noise of a measurement, and a release must not


@dataclass(frozen=True)
class ParityCase:
    """One request's rows as a ranker gets them."""

    request: Floats  # (Fr,)
    features: Floats  # (C, Fi)
    codes: NDArray[np.int32]  # (C, 4)
    cross: Floats  # (C, Fx)
    seen: NDArray[np.bool_]  # (C,)
    label: NDArray[np.bool_]  # (C,)


@dataclass(frozen=True)
class Drift:
    """How far one form of a ranker is from another: over requests, the mean overlap of the kept sets and their NDCG."""

    overlap: float
    ndcg_before: float  # of as many as are kept
    ndcg_after: float
    largest: float  # difference of a logit

    @property
    def harmless(self) -> bool:
        return self.overlap >= LEAST_OVERLAP and self.ndcg_after >= self.ndcg_before - MOST_NDCG_LOST


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


def drift(before: list[Floats], after: list[Floats], requests: list[ParityCase], kept: int, heads: Heads) -> Drift:
    """From one form's logits to another's."""
    overlaps, first, second, largest = [], [], [], 0.0
    for asked, old, new in zip(requests, before, after, strict=True):
        orders = [np.argsort(-heads.scores(logits, asked.seen), kind="stable") for logits in (old, new)]
        most = min(kept, len(old))
        overlaps.append(len(np.intersect1d(orders[0][:most], orders[1][:most])) / max(most, 1))
        first.append(_ndcg(asked.label[orders[0]], most))
        second.append(_ndcg(asked.label[orders[1]], most))
        largest = max(largest, float(np.abs(old - new).max(initial=0.0)))
    return Drift(float(np.mean(overlaps)), float(np.mean(first)), float(np.mean(second)), largest)


def _ndcg(label: NDArray[np.bool_], depth: int) -> float:
    gains = 1 / np.log2(np.arange(2, depth + 2))
    top = label[:depth]
    ideal = gains[: min(depth, int(label.sum()))].sum()
    return float(gains[: len(top)][top].sum() / ideal) if ideal else 0.0


def fastest_us(graphs: Mapping[str, bytes], model: Ranker, requests: list[ParityCase], rounds: int = 7) -> dict[str, float]:
    """CPU microseconds of one call of each graph: the best of interleaved rounds, so that a busy machine favours none."""
    sessions = {name: open_session(graph) for name, graph in graphs.items()}
    given = [(np.add(*halves(model, asked)), asked.cross) for asked in requests[:8]]
    best = dict.fromkeys(sessions, np.inf)
    for _ in range(rounds):
        for name, session in sessions.items():
            begin = time.thread_time()
            for both, cross in given:
                score(session, both, cross)
            best[name] = min(best[name], (time.thread_time() - begin) / len(given) * 1e6)
    return best


def choose(int8: Drift, us: Mapping[str, float]) -> tuple[str, str]:
    """Which form is served, and why: INT8 only where it is both harmless and faster."""
    speedup = us["fp32"] / max(us["int8"], 1e-9)
    if int8.overlap < LEAST_OVERLAP:
        return "fp32", f"int8 keeps {int8.overlap:.4f} of the same items, expected at least {LEAST_OVERLAP}"
    if not int8.harmless:
        return "fp32", f"int8 loses {int8.ndcg_before - int8.ndcg_after:.4f} of NDCG, expected at most {MOST_NDCG_LOST}"
    if speedup < LEAST_SPEEDUP:
        return "fp32", f"int8 is less than {LEAST_SPEEDUP} times as fast"
    return "int8", f"int8 is harmless and at least {LEAST_SPEEDUP} times as fast"


def as_record(drift: Drift) -> dict[str, Any]:
    """For parity.json."""
    values = {
        "overlap": drift.overlap,
        "ndcg_before": drift.ndcg_before,
        "ndcg_after": drift.ndcg_after,
        "largest_logit_difference": drift.largest,
    }
    return {name: round(value, 6) for name, value in values.items()}
