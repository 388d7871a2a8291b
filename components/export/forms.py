"""The forms a ranker may be served in: what each costs and loses, and which of them answers.

A form is a network (the learnt one, a pruned one, a student) and its graph (FP32 or INT8). Loss is judged on requests no pupil learnt from,
with labels the learnt network did learn from: a bound kept here is kept against a teacher at its best.
Shapes: Q requests, C candidates a request, H hidden.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.export.graphs import candidate_graph, layers_of, whole_graph
from components.export.onnx import to_int8
from components.export.parity import PER_CANDIDATE, ParityCase, graph_logits, halves, ndcg_of, torch_logits
from components.export.smaller import products, pruned, student_of, taught
from components.ranking.model import Ranker
from serving.bundle.arrays import Floats
from serving.bundle.onnx import open_session
from serving.networks import FULL, Compression, Network
from serving.objectives import Objective
from serving.ranking.heads import MOST_WORTH, Heads
from serving.ranking.layers import Layers
from serving.ranking.rankers import score

DRAWN = "drawn"  # the network as drawn, nothing precomputed: measured, never served
COUNTS = (200, 1000)  # candidates of a timed call
ROUNDS = 15
NEARLY = 1.25  # times as long as the fastest's: told apart by noise
SURE = 1.645  # standard errors: a loss is within its bound where nineteen in twenty say so
SAME = 0.99  # of the kept candidates: another arithmetic of the same network
GRADED = 8  # requests by which units are told strong or weak


@dataclass(frozen=True)
class Form:
    """One way to serve a ranker."""

    name: str
    model: Ranker  # whose halves it reads
    graph: bytes

    @cached_property
    def session(self) -> Any:
        return open_session(self.graph)

    @cached_property
    def layers(self) -> Layers | None:
        """The compiled loop's arrays, where it would run in the graph's place."""
        found = layers_of(self.model)
        return found if found is not None and found.agree(partial(score, self.session)) else None

    def call(self, table: NDArray[np.floating], rows: NDArray[np.int32], user: Floats, cross: Floats) -> Floats:
        """Logits (C, heads) as the server makes them: from item halves (I, H), the user's half (1, H), cross features (C, Fx)."""
        found = None if self.layers is None else self.layers.score(table, rows, user[0], cross)
        return found if found is not None else score(self.session, table[rows].astype(np.float32) + user, cross)


@dataclass(frozen=True)
class Quality:
    """One form beside the learnt network, over the same requests."""

    overlap: float  # of the kept candidates
    ndcg: float  # at as many as are kept
    lost: float  # of that NDCG, as a share of fp32's; below 0: gained
    lost_error: float  # standard error of the paired difference, as a share
    error: float  # of the weighted heads: mean distance of expected from true values, in usual values; 0: there are none
    grown: float  # that error's growth, as a share of fp32's
    parity: float  # largest difference of a logit from its own network in torch

    def refused(self, bounds: Compression) -> str:
        """Why it may not be served; empty: it may."""
        if self.overlap < bounds.overlap:
            return f"keeps {self.overlap:.4f} of the same items, expected at least {bounds.overlap:g}"
        doubt = 0.0 if self.overlap >= SAME else SURE * self.lost_error  # of much the same list a hit more or less is all there is to see
        if (most := self.lost + doubt) > bounds.lost:
            return f"loses {self.lost:.2%} of NDCG, by chance up to {most:.2%}, expected at most {bounds.lost:.2%}"
        if self.grown > bounds.error_grown:
            return f"the weighted heads' error grows by {self.grown:.2%}, expected at most {bounds.error_grown:.2%}"
        return ""


def made(model: Ranker, network: Network, bounds: Compression, lessons: Sequence[ParityCase]) -> dict[str, Form]:
    """The learnt network and each form that is to be tried, by name.

    Tried smaller are networks of the widths the system asks for (what --fast learns is small already), and by a student only
    those that cost a candidate more than twice as much.
    """
    networks: dict[str, Ranker] = {"": model}
    forms = {FULL: Form(FULL, model, candidate_graph(model))}
    for name in bounds.forms:
        steps = [step for step in name.split("+") if step != "int8"]
        if steps and not _worth(model, network, bounds, steps):
            continue
        for at in range(len(steps)):
            path, before = "+".join(steps[: at + 1]), networks["+".join(steps[:at])]
            if path not in networks:
                networks[path] = _smaller(steps[at], before, model, bounds, lessons)
        net = networks["+".join(steps)]
        graph = candidate_graph(net)
        forms[name] = Form(name, net, to_int8(graph) if name.endswith("int8") else graph)
    return forms


def _worth(model: Ranker, network: Network, bounds: Compression, steps: Sequence[str]) -> bool:
    if model.sizes.hidden != network.hidden:
        return False
    small = student_of(model, bounds.student)
    return "student" not in steps or 2 * products(small) <= products(model)


def _smaller(step: str, before: Ranker, teacher: Ranker, bounds: Compression, lessons: Sequence[ParityCase]) -> Ranker:
    if step == "student":
        return taught(student_of(teacher, bounds.student), teacher, lessons, sides=True, steps=bounds.steps)
    small = pruned(before, lessons[:GRADED], bounds.pruned)
    whole = not small.sizes.towers  # deep sides stay as they are: they cost a candidate nothing, and their lessons a lot
    return taught(small, teacher, lessons, sides=whole, steps=3 * bounds.steps // 10)


def qualities(
    forms: Mapping[str, Form], requests: list[ParityCase], kept: int, objectives: Mapping[str, Objective], dtype: type
) -> dict[str, Quality]:
    """Each form beside the learnt network. `dtype`: of item halves."""
    heads = Heads.of(objectives)
    full = [torch_logits(forms[FULL].model, asked) for asked in requests]
    first, errors = _gains(full, requests, kept, heads), value_error(full, requests, objectives)
    found = {}
    for name, form in forms.items():
        logits = graph_logits(form.graph, form.model, requests, dtype)
        own = [torch_logits(form.model, asked) for asked in requests]
        gains = _gains(logits, requests, kept, heads)
        lost, base = first - gains, max(float(first.mean()), 1e-9)
        error = value_error(logits, requests, objectives)
        found[name] = Quality(
            overlap=_overlap(full, logits, requests, kept, heads),
            ndcg=float(gains.mean()),
            lost=float(lost.mean()) / base,
            lost_error=float(lost.std(ddof=1) / np.sqrt(len(lost))) / base if len(lost) > 1 else 0.0,
            error=error,
            grown=error / errors - 1 if errors else 0.0,
            parity=max((float(np.abs(a - b).max(initial=0.0)) for a, b in zip(logits, own, strict=True)), default=0.0),
        )
    return found


def _order(logits: Floats, asked: ParityCase, heads: Heads) -> NDArray[np.intp]:
    return np.argsort(-heads.scores(logits, asked.seen), kind="stable")


def _gains(logits: list[Floats], requests: list[ParityCase], kept: int, heads: Heads) -> NDArray[np.float64]:
    """(Q,) NDCG of each request of which something was wanted."""
    pairs = [(found, asked) for found, asked in zip(logits, requests, strict=True) if asked.label.any()]
    return np.array([ndcg_of(asked.label[_order(found, asked, heads)], kept) for found, asked in pairs] or [0.0])


def _overlap(before: list[Floats], after: list[Floats], requests: list[ParityCase], kept: int, heads: Heads) -> float:
    shares = []
    for old, new, asked in zip(before, after, requests, strict=True):
        most = min(kept, len(old))
        tops = [_order(logits, asked, heads)[:most] for logits in (old, new)]
        shares.append(len(np.intersect1d(tops[0], tops[1])) / max(most, 1))
    return float(np.mean(shares))


def value_error(logits: list[Floats], requests: list[ParityCase], objectives: Mapping[str, Objective]) -> float:
    """Mean distance of what the weighted heads expect from what came, in their usual values; 0 where no head is weighted."""
    at = [column for column, one in enumerate(objectives.values()) if one.loss == "weighted"]
    if not at:
        return 0.0
    off = [
        np.abs(np.minimum(np.exp(found[:, at].astype(np.float64)), MOST_WORTH) - asked.outcome[:, at]).ravel()
        for found, asked in zip(logits, requests, strict=True)
    ]
    return float(np.concatenate(off).mean())


def costs(forms: Mapping[str, Form], requests: list[ParityCase], dtype: type) -> dict[str, dict[int, tuple[float, float]]]:
    """CPU microseconds of a call, by form and number of candidates: the median of interleaved rounds and its standard error.

    Interleaved, so that a busy machine favours none; each form by what would run for it, the compiled loop where there is one.
    """
    calls: dict[tuple[str, int], Callable[[], Any]] = {}
    for count in COUNTS:
        whole = _whole(requests, count)
        model = forms[FULL].model
        calls[DRAWN, count] = _drawn(model, whole)
        for name, form in forms.items():
            user, items = halves(form.model, whole)
            table: NDArray[Any] = items.astype(dtype)
            rows = np.arange(count, dtype=np.int32)
            calls[name, count] = partial(form.call, table, rows, user, whole.cross)
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in calls}
    for turn in range(ROUNDS + 1):
        for key, call in calls.items():
            began = time.thread_time()
            call()
            call()
            if turn:  # the first warms
                taken[key].append((time.thread_time() - began) / 2 * 1e6)
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for (name, count), values in taken.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        found.setdefault(name, {})[count] = (float(middle), float(0.93 * (high - low) / np.sqrt(len(values))))
    return found


def _whole(requests: list[ParityCase], count: int) -> ParityCase:
    """One request of so many candidates, made of those at hand."""
    rows = {name: np.concatenate([getattr(asked, name) for asked in requests[:20]]) for name in PER_CANDIDATE}
    at = np.resize(np.arange(len(rows["cross"])), count)
    return replace(requests[0], **{name: np.ascontiguousarray(values[at]) for name, values in rows.items()})


def _drawn(model: Ranker, asked: ParityCase) -> Callable[[], Any]:
    """A call of the whole network for every candidate; what it reads is standardised already."""
    session = open_session(whole_graph(model))
    with torch.no_grad():
        user = model.request_norm(torch.from_numpy(asked.request[None])).numpy()
        items = model.item_inputs(torch.from_numpy(asked.features), torch.from_numpy(asked.codes.astype(np.int64))).numpy()
    return partial(session.run, None, {"user": user, "items": items, "cross": asked.cross})


def choose(found: Mapping[str, Quality], us: Mapping[str, float], bounds: Compression) -> tuple[str, str, dict[str, str]]:
    """Which form is served and why, and why each other is not. `us`: of a call.

    Words and choice are the same for times that are much the same, for both are in the bundle, which is named by its content.
    """
    refused = {name: told for name, one in found.items() if name != FULL and (told := one.refused(bounds))}
    for name in found:
        if name != FULL and name not in refused and us[FULL] < bounds.faster * us[name]:
            refused[name] = f"is less than {bounds.faster:g} times as fast as fp32"
    left = [name for name in found if name != FULL and name not in refused]
    if not left:
        return FULL, "; ".join(f"{name} {told}" for name, told in refused.items()) or "no other form was tried", refused
    least = min(us[name] for name in left)
    best = next(name for name in left if us[name] <= NEARLY * least)  # of those as good as the fastest the one named first
    one = found[best]
    why = f"the fastest within the bounds, at {one.lost:+.2%} of NDCG lost and the weighted heads' error {one.grown:+.2%}"
    return best, why, refused


def as_record(found: Quality) -> dict[str, float]:
    """For parity.json."""
    return {name: round(value, 6) for name, value in asdict(found).items()}
