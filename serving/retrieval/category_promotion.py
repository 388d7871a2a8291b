"""Category affinity x popularity x promotion x store: untrained; beside the content tower the only source of items never sold.

    score(u, i) = prod_g lift_g(u, g(i)) ** power_g * users_lately(i) * store(s, i) * promotion(s, i)
    lift_g(u, c) = (A_uc + k share_c) / ((A_u + k) share_c)      A: the user's decayed counts, share: everyone's

Lifts, not counts: counts would ask for popular categories twice (new R@1000 on the choosing week .26 with counts, .30 and more with lifts).
Shapes: I items, A items on offer (sold lately or planned for any store), P places, G groupings, N codes of all
groupings together.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held
from serving.bundle.catalogue import Catalogue
from serving.native import kernel
from serving.query import Hits, Query
from serving.retrieval.interest import counts, past, positions
from serving.retrieval.sentences import like_usual, planned
from serving.retrieval.source import Given, TowerSides
from serving.retrieval.top_k import select
from serving.system import SourceSpec

GROUPINGS = ("category", "type", "brand")  # levels 1 and 2 of the category path, and the brand
_CACHED = 512  # (place, period) vectors kept
_NARROW = 1 << 16  # kinds that sixteen bits tell apart


@dataclass(frozen=True)
class Offers(ArrayFolder):
    """What offers are worth before the user is known."""

    rows: Annotated[NDArray[np.int32], Held("A", below="I")]  # (A,) item rows, ascending
    popularity: Annotated[NDArray[np.float32], Held("A")]  # (A,) users lately, smoothed
    local_ends: Annotated[NDArray[np.int64], Held("P", ends="E")]  # (P,) where each place's entries end
    local_at: Annotated[NDArray[np.int32], Held("E", below="A")]  # positions in `rows` of what is sold there
    local_factor: Annotated[NDArray[np.float32], Held("E")]  # (share in the place / share everywhere) ** power
    local_default: Annotated[NDArray[np.float32], Held("P")]  # (P,) the factor of what is not sold there
    share_ends: Annotated[NDArray[np.int64], Held("G", ends="N")]  # (G,) where each grouping's shares end
    shares: Annotated[NDArray[np.float32], Held("N")]  # share of all counts of each code, grouping after grouping
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

    codes: NDArray[np.int32]  # (groupings, kinds)
    at: NDArray[np.integer]  # (A,) kind of each offer

    @classmethod
    def of(cls, codes: NDArray[np.int32], *groupings: int) -> Self:
        distinct, at = np.unique(codes[list(groupings)], axis=1, return_inverse=True)
        return cls(np.ascontiguousarray(distinct, np.int32), at.ravel().astype(np.uint16 if distinct.shape[1] <= _NARROW else np.intp))

    def lift(self, lifts: Floats) -> Floats:
        """(kinds,) the product of the lifts of a kind's codes."""
        product: Floats = lifts[self.codes].prod(axis=0)
        return product


@dataclass(frozen=True)
class CategoryPromotion:
    """The user's affinity to what an offer is, times what the offer is worth in the user's store this week."""

    spec: SourceSpec
    catalogue: Catalogue = field(repr=False)
    offers: Offers = field(repr=False)
    position_of: NDArray[np.int32] = field(repr=False)  # (I,) of an item among the offers; -1 not on offer
    kinds: tuple[Kinds, Kinds] = field(repr=False)
    worth: dict[tuple[int, int], Floats] = field(default_factory=dict, repr=False)  # (place, period) -> (A,)
    chain: dict[int, tuple[Floats, Floats]] = field(default_factory=dict, repr=False)  # period -> (A,), (A,)

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        offers = Offers.load(folder, I=len(catalogue))
        position_of = np.full(offers.items, -1, np.int32)
        position_of[offers.rows] = np.arange(len(offers.rows), dtype=np.int32)
        codes = flat_codes(catalogue, offers)[offers.rows].T
        kinds = (Kinds.of(codes, 0, 1), Kinds.of(codes, 2))  # a type refines its category: together hardly more kinds than types
        return cls(spec, catalogue, offers, position_of, kinds)

    @cached_property
    def codes_of(self) -> NDArray[np.int32]:
        """(I, G) see `flat_codes`; of all items of the catalogue, those posted since among them."""
        return flat_codes(self.catalogue, self.offers)

    @cached_property
    def powers(self) -> NDArray[np.float64]:
        """(G,) of the lifts."""
        return np.array(self.offers.powers)

    @cached_property
    def power_of(self) -> NDArray[np.float64]:
        """(N,) of the lift of each code."""
        return np.repeat(self.powers, np.diff(self.offers.share_ends, prepend=0))

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The `n` best offers; the score of what is not on offer is 0."""
        offers, (first, second), excluded = self.offers, self.kinds, query.excluded
        worth = self._worth(query.place, self.catalogue.plan_at(query.request.at_day))
        barred = positions(excluded, self.position_of)[0] if len(excluded) else excluded
        found = None
        if kernel.native():
            had = past(query, offers.tau_days)
            found = kernel.category_promotion(self.codes_of, had, offers, self.powers, worth, self.kinds, barred, n)
        if found is None:
            lifts = self._lifts(query)
            values = first.lift(lifts)[first.at] * worth * second.lift(lifts)[second.at]  # (A,)
            best = select(values, n, barred, floor=0.0)
            found = offers.rows[best], values[best], values
        rows, scores, values = found
        return Hits(rows, scores, values, self.position_of)

    @classmethod
    def lacks(cls, given: Given) -> str:
        """A plan, where the table context has no row."""
        return "" if given.planned else "the table context plans nothing, so no item is promoted"

    def reason(self, query: Query, row: int) -> str:
        """The greater of what made it worth offering: the plan of the user's store, or the user's way with its category."""
        plan, usual = planned(query, row), like_usual(query, row)
        if plan and usual:
            return plan if self._promotion_of(query, row) >= self._lift_of(query, row) else usual
        category = query.catalogue.readable_category(row)
        return plan or usual or (f"Popular in {category}" if category else "")

    def _promotion_of(self, query: Query, row: int) -> float:
        """The factor of what the user's own store plans for an item."""
        catalogue, offers = query.catalogue, self.offers
        at = catalogue.plan_at(query.request.at_day), query.place, row
        return float(
            (1 + offers.display_lift * (catalogue.plan_display[at] > 0)) * (1 + offers.mailer_lift * (catalogue.plan_mailer[at] > 0))
        )

    def _lift_of(self, query: Query, row: int) -> float:
        """The product of the lifts of an item's category, type and brand."""
        codes, lifts = self.codes_of[row], query.once(("lifts", self.spec.kind), lambda: self._lifts(query))
        return float(lifts[codes[codes < len(lifts)]].prod())

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """The same offers: a posted item is not on offer, but one that was bought or clicked since says what its user goes for."""
        return replace(self, catalogue=catalogue)

    def _lifts(self, query: Query) -> Floats:
        """(N,) how much more the user goes for each code than everyone does, to its power; grouping after grouping. 1 without history."""
        offers, prior, codes = self.offers, self.offers.prior_counts, len(self.offers.shares)
        weights = np.concatenate((counts(query, offers.tau_days), query.session[1]))  # (H + E,)
        total = float(weights.sum()) + prior
        of_items = self.codes_of[query.rows]  # (H + E, G)
        own = np.bincount(of_items.ravel(), np.repeat(weights, of_items.shape[1]), minlength=codes + 1)[:codes]  # (N,)
        sizes = np.diff(offers.share_ends, prepend=0)  # (G,)
        lifts = np.repeat(
            [(prior / total) ** power for power in offers.powers], sizes
        )  # of what was never had; Python's power, as the loop's
        met = own > 0
        lifts[met] = ((own[met] / offers.shares[met] + prior) / total) ** self.power_of[met]
        return lifts.astype(np.float32)

    def _worth(self, place: int, period: int) -> Floats:
        """(A,) popularity x store x promotion, made once for a store and a planned period."""
        key = (place, period)
        if key not in self.worth:
            if len(self.worth) >= _CACHED:
                self.worth.clear()
            self.worth[key] = (self._local(place) * self._planned(place, period)).astype(np.float32)
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
        """(A,) factor of the plan: of the whole chain, and of the place, or of any of them where it is not known."""
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


def flat_codes(catalogue: Catalogue, offers: Offers) -> NDArray[np.int32]:
    """(I, G) place of each item's code among all shares; the place after the last for a code without a share."""
    begins = np.concatenate(([0], offers.share_ends[:-1]))
    sizes = np.diff(offers.share_ends, prepend=0)
    codes = np.stack([grouping_codes(catalogue, name) for name in GROUPINGS], axis=1)
    return np.where(codes < sizes, codes + begins, offers.share_ends[-1]).astype(np.int32)


def grouping_codes(catalogue: Catalogue, name: str) -> NDArray[np.int32]:
    """(I,) codes of one of `GROUPINGS`."""
    return catalogue.brand if name == "brand" else catalogue.category[:, GROUPINGS.index(name) + 1]


def category_promotion(*, share: float, weight: float = 0.3, discover_weight: float = 0.2, offset: float = 60.0) -> SourceSpec:
    """Category affinity x popularity x promotion x store."""
    return SourceSpec.of("category_promotion", share, weight, discover_weight, offset)
