"""Examples for the rankers from rolling weekly cuts: what the server would have retrieved at each cut, and what was then chosen.

Everything here is made by the serving code (`serving.retrieval.fusion.retrieve`, `serving.ranking.features`) from one cut's folders, so
nothing after a cut is read but its labels. All that was chosen, all of which anything came for a head
all that was shown, and all items of the history are kept; other candidates are sampled, half of
them near the top of the fused list, and weighted back. Shapes: Q queries, N examples end to end, Fr, Fi, Fx features, I items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from components.ranking.fitted import FittedCut
from feature_repo.names import cross_names, request_names
from serving.bundle.arrays import ArrayFolder, Floats
from serving.query import Candidates, Query, Request
from serving.ranking.features import cross_features, request_features
from serving.ranking.heads import Heads
from serving.retrieval.fusion import retrieve
from serving.system import System


@dataclass(frozen=True)
class Sampling:
    """How many examples are taken."""

    users: int = 4000  # of each cut, those with a label only
    top: int = 60  # negatives among the first `near` by fused rank
    rest: int = 60  # negatives among the others
    near: int = 250


@dataclass(frozen=True)
class Examples(ArrayFolder):
    """Examples of one or more cuts, those of one query next to each other."""

    request: Floats  # (Q, Fr)
    size: NDArray[np.int64]  # (Q,) examples of each query
    cut: NDArray[np.int32]  # (Q,) which cut
    discover: NDArray[np.bool_]  # (Q,) the pool left out what the user had had
    targets: NDArray[np.int32]  # (Q,) labels of the query, retrieved or not
    item: NDArray[np.int32]  # (N,) row in the cut's catalogue
    cross: NDArray[np.float16]  # (N, Fx)
    label: NDArray[np.bool_]  # (N,) the user chose it: what orders are judged by
    outcome: Floats  # (N, H) what came of it for each head
    seen: NDArray[np.bool_]  # (N,)
    weight: Floats  # (N,) how many candidates the example stands for
    slot: NDArray[np.uint8]  # (N,) where it was shown in the days after the cut (`components.ranking.fitted.slot_of`); 0: not that we know


def join(parts: Sequence[Examples]) -> Examples:
    """All examples of several cuts, in their order. Raises `ValueError` when there are none."""
    if not any(len(part.size) for part in parts):
        raise ValueError("no user has a label that was retrieved at any cut: check that the events reach beyond the first cut")
    return Examples(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Examples)})


def make_examples(system: System, cut: FittedCut, sampling: Sampling, seed: int, index: int = 0) -> Examples:
    """The examples of one cut, numbered `index`. The same cut and seed give the same bytes."""
    heads: list[tuple[Floats, bool, int]] = []
    bodies: list[_Body] = []
    for user in chosen_users(cut, sampling.users, seed + index):
        rng = np.random.default_rng((seed, index, user))
        for query in queries_of(system, cut, user):
            body = _body(query, cut, system, sampling, rng, user)
            if body is not None:
                heads.append((padded(request_features(query), cut), query.request.discover, body.targets))
                bodies.append(body)
    columns = len(cross_names(system.kinds, system.learning.cross))

    def joined(name: str, dtype: type, *shape: int) -> NDArray:  # type: ignore[type-arg]
        return np.concatenate([np.empty((0, *shape), dtype), *(getattr(body, name) for body in bodies)])

    return Examples(
        request=np.array([head[0] for head in heads], np.float32).reshape(len(heads), request_width(cut)),
        size=np.array([len(body.item) for body in bodies], np.int64),
        cut=np.full(len(bodies), index, np.int32),
        discover=np.array([head[1] for head in heads], bool),
        targets=np.array([head[2] for head in heads], np.int32),
        item=joined("item", np.int32),
        cross=joined("cross", np.float16, columns),
        label=joined("label", np.bool_),
        outcome=joined("outcome", np.float32, len(system.objectives)),
        seen=joined("seen", np.bool_),
        weight=joined("weight", np.float32),
        slot=joined("slot", np.uint8),
    )


def queries_of(system: System, cut: FittedCut, user: int) -> Iterator[Query]:
    """The two questions a user is asked for: anything, and only what is new."""
    state = cut.users[user]
    for discover in (False, True):
        request = Request(state.user_id, system.answer_size, cut.users.asked_day(user), discover=discover)
        yield Query(request, state, cut.catalogue, system.learning)


def candidates_of(query: Query, cut: FittedCut, system: System, user: int) -> Candidates:
    """What the server would rank for the user at index `user`."""
    return retrieve(query, cut.sources, system.pool_size, None if cut.vectors is None else cut.vectors[user])


def chosen_users(cut: FittedCut, most: int, seed: int) -> list[int]:
    """Users with a label or an outcome, at most so many, in the table's order."""
    names = [bytes(name).decode() for name in cut.users.user_ids]
    found = np.array([index for index, name in enumerate(names) if len(cut.wanted(name)) or name in cut.outcomes], np.int64)
    if len(found) > most:
        found = np.sort(np.random.default_rng(seed).choice(found, most, replace=False))
    return [int(index) for index in found]


def request_width(cut: FittedCut) -> int:
    """Fr: request features of a user whose own features are known."""
    return len(request_names(cut.users.feature_names))


def padded(features: Floats, cut: FittedCut) -> Floats:
    """An unknown user's features are absent: NaN to the full width."""
    return np.concatenate((features, np.full(request_width(cut) - len(features), np.nan, np.float32)))


@dataclass(frozen=True)
class _Body:
    """The examples of one query."""

    targets: int
    item: NDArray[np.int32]
    cross: NDArray[np.float16]
    label: NDArray[np.bool_]
    outcome: Floats
    seen: NDArray[np.bool_]
    weight: Floats
    slot: NDArray[np.uint8]


def _body(query: Query, cut: FittedCut, system: System, sampling: Sampling, rng: np.random.Generator, user: int) -> _Body | None:
    wanted = cut.wanted(query.state.user_id)
    if query.request.discover:
        wanted = np.setdiff1d(wanted, query.history_rows, assume_unique=True)
    candidates = candidates_of(query, cut, system, user)
    label, outcome = np.isin(candidates.rows, wanted), cut.came_of(query.state.user_id, candidates.rows)
    told = label | (outcome * Heads.of(system.objectives).judging(candidates.seen) > 0).any(axis=1)
    if not told.any():
        return None
    slot = cut.slots_of(query.state.user_id, candidates.rows)
    kept, weight = sample(told | candidates.seen | (slot > 0), sampling, rng)  # what was shown and left is known not to be wanted
    cross = cross_features(query, candidates)[kept]  # features first: some compare a candidate with all the others
    rows, seen = candidates.rows[kept], candidates.seen[kept]
    return _Body(len(wanted), rows, cross.astype(np.float16), label[kept], outcome[kept], seen, weight, slot[kept])


def sample(must: NDArray[np.bool_], sampling: Sampling, rng: np.random.Generator) -> tuple[NDArray[np.intp], Floats]:
    """Positions kept, ascending, and what each stands for: all of `must`; of the others some near the top and some further down."""
    others = np.flatnonzero(~must)
    near, far = others[others < sampling.near], others[others >= sampling.near]
    weight = np.zeros(len(must), np.float32)
    weight[must] = 1
    for group, most in ((near, sampling.top), (far, sampling.rest)):
        if few := min(most, len(group)):
            weight[rng.choice(group, few, replace=False)] = len(group) / few
    kept = np.flatnonzero(weight)
    return kept, weight[kept]
