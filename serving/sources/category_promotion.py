"""Category affinity x popularity x promotion x store: untrained; beside the content tower the only source of items never sold.

    score(u, i) = prod_g lift_g(u, g(i)) ** power_g * users_lately(i) * store(s, i) * promotion(s, i)
    lift_g(u, c) = (A_uc + k share_c) / ((A_u + k) share_c)      A: the user's decayed counts, share: everyone's

Lifts, not counts: counts would ask for popular categories twice (new R@1000 on the choosing week .26 with counts, .30 and more with lifts).
Shapes: I items, A items on offer (sold lately or planned for any store), P places, G groupings, C codes of a grouping.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serving.arrays import ArrayFolder
from serving.catalogue import Catalogue
from serving.index import select
from serving.query import Floats, Hits, Query
from serving.sources.history import counts, positions
from serving.system import SourceSpec

GROUPINGS = ("category", "type", "brand")  # levels 1 and 2 of the category path, and the brand
_CACHED = 512  # (place, period) vectors kept


@dataclass(frozen=True)
class Offers(ArrayFolder):
    """What offers are worth before the user is known."""

    rows: NDArray[np.int32]  # (A,) item rows, ascending
    popularity: NDArray[np.float32]  # (A,) users lately, smoothed
    local_ends: NDArray[np.int64]  # (P,) where each place's entries end
    local_at: NDArray[np.int32]  # positions in `rows` of what is sold there
    local_factor: NDArray[np.float32]  # (share in the place / share everywhere) ** power
    local_default: NDArray[np.float32]  # (P,) the factor of what is not sold there
    share_ends: NDArray[np.int64]  # (G,) where each grouping's shares end
    shares: NDArray[np.float32]  # share of all counts of each code, grouping after grouping
    powers: tuple[float, ...]  # (G,) of the lifts
    display_lift: float  # factor 1 + lift where planned in the user's own store
    mailer_lift: float
    chain_lift: float  # the same, times the share of all stores that plan it
    tau_days: float
    prior_counts: float  # k of the lifts
    items: int  # I


@dataclass(frozen=True)
class Kinds:
    """Distinct combinations of some groupings' codes among the offers: lifts are made once a kind and gathered once an offer."""

    groupings: tuple[int, ...]
    codes: NDArray[np.int32]  # (groupings, kinds)
    at: NDArray[np.intp]  # (A,) kind of each offer

    @classmethod
    def of(cls, codes: NDArray[np.int32], *groupings: int) -> Self:
        distinct, at = np.unique(codes[list(groupings)], axis=1, return_inverse=True)
        return cls(groupings, distinct, at.ravel())


@dataclass(frozen=True)
class CategoryPromotion:
    """The user's affinity to what an offer is, times what the offer is worth in the user's store this week."""

    spec: SourceSpec
    catalogue: Catalogue = field(repr=False)
    offers: Offers = field(repr=False)
    position_of: NDArray[np.int32] = field(repr=False)  # (I,) of an item among the offers; -1 not on offer
    kinds: tuple[Kinds, ...] = field(repr=False)
    worth: dict[tuple[int, int], Floats] = field(default_factory=dict, repr=False)  # (place, period) -> (A,)
    chain: dict[int, tuple[Floats, Floats]] = field(default_factory=dict, repr=False)  # period -> (A,), (A,)

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        offers = Offers.load(folder)
        position_of = np.full(offers.items, -1, np.int32)
        position_of[offers.rows] = np.arange(len(offers.rows), dtype=np.int32)
        codes = np.stack([grouping_codes(catalogue, name)[offers.rows] for name in GROUPINGS])
        kinds = (Kinds.of(codes, 0, 1), Kinds.of(codes, 2))  # a type refines its category: together hardly more kinds than types
        return cls(spec, catalogue, offers, position_of, kinds)

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The `n` best offers; `dense` (I,) is 0 for what is not on offer."""
        offers, lifts = self.offers, self.lifts(query)
        scores = self._worth(query.place, self.catalogue.plan_at(query.request.at_day))  # (A,)
        for kinds in self.kinds:
            lift = np.prod([lifts[g][codes] for g, codes in zip(kinds.groupings, kinds.codes, strict=True)], axis=0)
            scores = scores * lift.take(kinds.at)
        best = select(scores, n, positions(query.excluded, self.position_of)[0], floor=0.0)
        dense = np.zeros(offers.items, np.float32)
        dense[offers.rows] = scores
        return Hits(offers.rows[best], scores[best], dense)

    def lifts(self, query: Query) -> list[Floats]:
        """For every grouping (C,): how much more the user goes for each code than everyone does, to its power. 1 without history."""
        offers = self.offers
        session_rows, session_weights = query.session
        rows = np.concatenate([query.history_rows, session_rows])
        weights = np.concatenate([counts(query, offers.tau_days), session_weights])
        total = float(weights.sum()) + offers.prior_counts
        lifts, begin = [], 0
        for name, end, power in zip(GROUPINGS, offers.share_ends.tolist(), offers.powers, strict=True):
            share = offers.shares[begin:end]
            own = np.bincount(grouping_codes(self.catalogue, name)[rows], weights, minlength=len(share))[: len(share)]
            lift = np.full(len(share), (offers.prior_counts / total) ** power, np.float32)
            touched = np.flatnonzero(own)
            lift[touched] = ((own[touched] / share[touched] + offers.prior_counts) / total) ** power
            lifts.append(lift)
            begin = end
        return lifts

    def _worth(self, place: int, period: int) -> Floats:
        """(A,) popularity x store x promotion, made once for a store and a planned period."""
        key = (place, period)
        if key not in self.worth:
            if len(self.worth) >= _CACHED:
                self.worth.clear()
            self.worth[key] = self._local(place) * self._planned(place, period)
        return self.worth[key]

    def _local(self, place: int) -> Floats:
        offers = self.offers
        if place < 0:
            return np.asarray(offers.popularity)
        local = slice(int(offers.local_ends[place - 1]) if place else 0, int(offers.local_ends[place]))
        factor = np.full(len(offers.rows), offers.local_default[place], np.float32)
        factor[offers.local_at[local]] = offers.local_factor[local]
        return offers.popularity * factor

    def _planned(self, place: int, period: int) -> Floats:
        """(A,) factor of the plan: of the whole chain, and of the place."""
        offers, catalogue = self.offers, self.catalogue
        if period < 0 or not catalogue.places:
            return np.ones(len(offers.rows), np.float32)
        displayed, mailed = self._chain(period)
        factor = (1 + offers.chain_lift * displayed) * (1 + offers.chain_lift * mailed)
        if place >= 0:
            displayed, mailed = (plan[period, place][offers.rows] > 0 for plan in (catalogue.plan_display, catalogue.plan_mailer))
        return factor * (1 + offers.display_lift * displayed) * (1 + offers.mailer_lift * mailed)

    def _chain(self, period: int) -> tuple[Floats, Floats]:
        """(A,), (A,) share of all places that plan a display and a mailer of each offer; made once a period."""
        if period not in self.chain:
            plans = (self.catalogue.plan_display, self.catalogue.plan_mailer)
            self.chain[period] = tuple((plan[period] > 0).mean(axis=0, dtype=np.float32)[self.offers.rows] for plan in plans)  # type: ignore[assignment]
        return self.chain[period]


def grouping_codes(catalogue: Catalogue, name: str) -> NDArray[np.int32]:
    """(I,) codes of one of `GROUPINGS`."""
    return catalogue.brand if name == "brand" else catalogue.category[:, GROUPINGS.index(name) + 1]


load = CategoryPromotion.load
