"""What travels through a request: the question, the candidates, the answer.

Shapes: C candidates, S sources (in the order of the system file), H history items, I items.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from math import exp
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_repo.names import TAUS_DAYS
from serving.bundle.arrays import Floats, Rows
from serving.bundle.catalogue import Catalogue
from serving.messages import Only
from serving.native import kernel
from serving.restriction import allowed, named, together
from serving.state.user_state import UserState
from serving.system import Learning

T = TypeVar("T")
_TAUS = np.asarray(TAUS_DAYS)

_NOBODY = UserState("")
_LEAST_WEIGHT = 1e-3  # an event that counts for less is left out of the session
_NOTHING = (np.empty(0, np.int32), np.empty(0, np.float32))  # no rows, and nothing of them


class Request(msgspec.Struct, frozen=True, gc=False):
    """What a client asks. `at_day`: days since 1970, of the clock, or of the cut in an evaluation."""

    user_id: str
    k: int
    at_day: float
    request_id: str = ""
    place: str = ""  # store; empty: the user's usual one
    region: str = ""
    device_type: str = ""
    page: str = ""
    discover: bool = False  # leave out everything the user has had
    only: Only | None = None  # nothing but these items
    leave_out: tuple[str, ...] = ()  # and not those
    similar_to: str = ""  # an item: not the user's list is asked for, but items like it
    popular: bool = False  # not the user's list, but what most had
    erased: bool = False  # the user was deleted: no list made of them before is used

    @property
    def personal(self) -> bool:
        """Whether the user's own list is asked for."""
        return not self.similar_to and not self.popular

    @property
    def about(self) -> str:
        """What was asked for, where it was not the user's own list of everything; else empty."""
        if self.similar_to:
            return f"similar to {self.similar_to}"
        return "popular" if self.popular else "only some" if self.restricted else ""

    @property
    def restricted(self) -> bool:
        """Whether the list is of some items only: it is then no list to keep for the user."""
        return bool(self.only) or bool(self.leave_out)


@dataclass(frozen=True)
class Query:
    """A request with the user's state resolved to this bundle's rows. Built once a request; sources and features read it."""

    request: Request
    state: UserState
    catalogue: Catalogue
    learning: Learning
    verb: str = "chose"  # what a positive event is called in a sentence, past tense

    @classmethod
    def told(
        cls, request: Request, catalogue: Catalogue, learning: Learning, history: "History", session: tuple[Rows, Floats], followed: Rows,
        few_visits: bool, refused: Rows,
    ) -> "Query":  # fmt: skip
        """The question of a user whose state is elsewhere, with what was made of it there."""
        query = cls(request, _NOBODY, catalogue, learning)
        vars(query).update(history=history, session=session, followed=followed, few_visits=few_visits, refused=refused)
        return query

    @cached_property
    def history(self) -> "History":
        """What the user has had of this bundle's items."""
        return History.of(self.state, self.catalogue, self.request.at_day)

    @cached_property
    def few_visits(self) -> bool:
        """Whether too little is known of a user for rankers learnt from others: nothing was had, or all of it at one moment."""
        days = self.state.last_day
        return not len(days) or bool(days[0] == days[-1] and (days == days[0]).all())

    @property
    def history_rows(self) -> Rows:
        """(H,) item rows the user has had, ascending; items the catalogue lacks are left out."""
        return self.history.rows

    @cached_property
    def session(self) -> tuple[Rows, Floats]:
        """Item rows and weights of recent events that are not positives: (E,), (E,). Decayed by `learning.session_tau_days`."""
        if not len(self.state.session_keys):
            return _NOTHING
        state, at, tau, worth = self.state, self.request.at_day, self.learning.session_tau_days, self.learning.weight_of_code
        events = zip(  # a few: one by one they cost less than a dozen calls of numpy
            self.catalogue.rows_of_keys(state.session_keys).tolist(), state.session_types.tolist(), state.session_days.tolist(), strict=True
        )
        weighed = [(row, worth.get(kind, 0.0) * exp(-max(at - day, 0.0) / tau)) for row, kind, day in events if row >= 0]
        kept = [(row, weight) for row, weight in weighed if weight > _LEAST_WEIGHT]
        return np.array([row for row, _ in kept], np.int32), np.array([weight for _, weight in kept], np.float32)

    @cached_property
    def rows(self) -> Rows:
        """(H + E,) rows of the history, then of the session."""
        clicked = self.session[0]
        return np.concatenate((self.history.rows, clicked)) if len(clicked) else self.history.rows

    @property
    def place(self) -> int:
        """Index of the store in the catalogue's places, or -1."""
        return self.catalogue.place_index.get(self.request.place or self.state.place, -1)

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once a question: what a source reads of the history once to explain many items by it."""
        made = self._made
        if key not in made:
            made[key] = make()
        found: T = made[key]
        return found

    @cached_property
    def hidden(self) -> Rows:
        """(N,) rows the user hid: no list holds them, on any rung."""
        return self._known(self.state.hidden)

    @cached_property
    def disliked(self) -> Rows:
        """(N,) rows the user likes less: they and their like stand lower, on every rung."""
        return self._known(self.state.disliked)

    @cached_property
    def followed(self) -> Rows:
        """(F,) rows by whose brand the user follows it, ascending."""
        return np.sort(self._known(self.state.followed))

    def _known(self, keys: NDArray[np.uint64]) -> Rows:
        """Rows of the keys that the catalogue has."""
        if not len(keys):
            return _NOTHING[0]
        rows = self.catalogue.rows_of_keys(keys)
        return rows[rows >= 0]

    @cached_property
    def excluded(self) -> Rows:
        """Rows no source may return: what was not asked for, and when discovering what the user has had."""
        had = self.history_rows if self.request.discover else _NOTHING[0]
        return together(len(self.catalogue), had, self.refused) if len(self.refused) else had

    @cached_property
    def refused(self) -> Rows:
        """(N,) rows the question leaves out, ascending: by name, and all that are not of the kinds it asks for."""
        request = self.request
        if not request.restricted:
            return _NOTHING[0]
        asked = allowed(request.only, self.catalogue, request.at_day) if request.only else np.ones(len(self.catalogue), np.bool_)
        return np.flatnonzero(~asked | named(request.leave_out, self.catalogue)).astype(np.int32)

    @cached_property
    def withheld(self) -> Rows:
        """(N,) rows this list may not hold, on any rung: what the question leaves out and what the user hid."""
        return together(len(self.catalogue), self.hidden, self.refused) if len(self.refused) else self.hidden


@dataclass(frozen=True)
class History:
    """A user's history on the rows of a bundle, ascending by row, at one moment. T decay constants, see `serving/state/user_state.py`."""

    rows: Rows  # (H,)
    order: NDArray[np.intp]  # (H,) position in the state's arrays
    counts: Floats  # (H,) events
    age: Floats  # (H,) days since the last
    span: Floats  # (H,) days from the first to the last
    decayed: Floats  # (T, H) counts decayed to this moment

    def position_of(self, row: int) -> int:
        """Where an item is in the history, or -1."""
        at = int(self.rows.searchsorted(row))
        return at if at < len(self.rows) and self.rows[at] == row else -1

    @classmethod
    def of(cls, state: UserState, catalogue: Catalogue, day: float) -> "History":
        """An item of which the state says what cannot be (a count below zero, NaN) is left out."""
        found = kernel.history(catalogue, state, _TAUS, day)
        if found is not None:
            return cls(*found)
        rows = catalogue.rows_of_keys(state.keys)  # (H,)
        known = np.flatnonzero((rows >= 0) & _sane(state))
        order = known[np.argsort(rows[known], kind="stable")]
        last, first = state.last_day[order], state.first_day[order]
        age = np.maximum(day - last, 0.0)
        decayed = state.decayed[order].T * np.exp(-age / _TAUS[:, None])  # (T, H)
        return cls(
            rows[order], order, state.counts[order], age.astype(np.float32), (last - first).astype(np.float32), decayed.astype(np.float32)
        )


def _sane(state: UserState) -> NDArray[np.bool_]:
    """(H,) where times and counts are numbers, and nothing was had less than not at all."""
    counts = np.column_stack((state.counts, state.decayed))  # (H, 1 + T)
    return np.isfinite(state.last_day) & np.isfinite(state.first_day) & (np.isfinite(counts) & (counts >= 0)).all(axis=1)


@dataclass(frozen=True)
class Hits:
    """One source's answer, best first."""

    rows: Rows  # (n,)
    scores: Floats  # (n,) descending
    values: Floats | None = None  # (V,) the source's score of everything it knows; None: it knows only what it returned
    position_of: Rows | None = None  # (I,) where an item is in `values`, -1 nowhere; None: at its row

    def scores_of(self, rows: Rows) -> Floats:
        """(n,) the source's score of any rows; 0 where it gives none."""
        if self.values is None:
            place = dict(zip(self.rows.tolist(), self.scores.tolist(), strict=True))
            return np.array([place.get(row, 0.0) for row in rows.tolist()], np.float32)
        known = len(self.values) if self.position_of is None else len(self.position_of)  # rows beyond were posted since the fit
        at = np.where(rows < known, rows, -1)
        if self.position_of is not None:
            at = np.where(at >= 0, np.append(self.position_of, -1)[at], -1)
        return np.where(at >= 0, np.append(self.values, np.float32(0))[at], np.float32(0))


@dataclass(frozen=True)
class Candidates:
    """Items under consideration: row c of every array is one item."""

    rows: Rows  # (C,) item rows, each once
    source_scores: Floats  # (C, S) the source's score; 0 where it gives none
    source_ranks: Floats  # (C, S) 0-based rank in the source's list; inf where it did not return the item
    fused: Floats  # (C,) reciprocal-rank fusion, higher is better
    seen: NDArray[np.bool_]  # (C,) the user has had it before

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray) -> "Candidates":  # type: ignore[type-arg]
        """Those at the given positions, or where a mask is true, in that order."""
        return Candidates(self.rows[which], self.source_scores[which], self.source_ranks[which], self.fused[which], self.seen[which])


class Answered(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of an answer, also as the exposure log keeps it."""

    row: int
    item_id: str
    score: float
    sources: tuple[str, ...]  # every source that returned it, best rank first
    reason: str  # one plain sentence


@dataclass
class Answer:
    """What goes back, and what the exposure log keeps. Its times are put in when they are known."""

    request_id: str
    bundle: str  # digest
    items: tuple[Answered, ...]
    degraded: dict[str, str] | None = None  # {"rung", "reason", "cost"}; None: the full rung answered
    arm: str | None = None
    took_ms: float = 0.0
    stage_ms: dict[str, float] = field(default_factory=dict)
    trace: Any = field(default=None, compare=False, repr=False)  # serving.recommender.Trace: what the exposure log keeps
