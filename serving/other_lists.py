"""Lists that are not a user's own: items similar to one, and what most had. Found by simple steps, each a rung below the one before.

    similar: what the sources say is like it -> popular in its narrowest category -> the bundle's static list
    popular: what a source counted -> the bundle's list of the region -> its static list

They stand as they are found, under the bars alone. Like any list they hold nothing that was hidden, left out or not asked for.
Shapes: n rows of a list, S sources that know of likeness.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.bundle.arrays import Rows
from serving.query import Answer, Answered, Query
from serving.recommender import Recommender, Trace, listed
from serving.restriction import NotInCatalogue, together
from serving.retrieval.fusion import RANK_OFFSET
from serving.retrieval.reasons import FILLED_UP, POPULAR
from serving.retrieval.source import Alike, Counted


@dataclass
class OtherList:
    """A list on its way: rows once each, best first, who returned each, and the first step that gave something."""

    rows: list[int] = field(default_factory=list)
    sources: dict[int, tuple[str, ...]] = field(default_factory=dict)
    said: dict[int, str] = field(default_factory=dict)
    rung: str = ""

    def take(self, rung: str, rows: Sequence[int], sources: Callable[[int], tuple[str, ...]], said: Callable[[int], str]) -> None:
        for row in rows:
            if row not in self.sources:
                self.rows.append(row)
                self.sources[row], self.said[row] = sources(row), said(row)
        if len(rows) and not self.rung:
            self.rung = rung


Step = Callable[[Recommender, Query, OtherList], None]


def steps(query: Query) -> tuple[tuple[str, Step], ...]:
    """The steps of a question, best first, by the name of their rung."""
    if query.request.similar_to:
        return ("full", _alike), ("popular", _like_it), ("static", _static)
    return ("full", _counted), ("popular", _of_region), ("static", _static)


def enough(recommender: Recommender, query: Query, found: OtherList) -> bool:
    """Whether the list holds as many as were asked for."""
    return len(_permitted(recommender, query, np.array(found.rows, np.int32))) >= query.request.k


def answered(recommender: Recommender, query: Query, found: OtherList, degraded: dict[str, str] | None) -> Answer:
    """The first k that may be shown, each with its sources and a sentence."""
    rows = np.array(found.rows, np.int32)
    ranked = listed(rows, query)
    arranged = recommender.rules.barred_only(ranked, query.request, _withheld(recommender, query))
    entries = zip(arranged.rows.tolist(), arranged.scores.tolist(), strict=True)
    items = tuple([Answered(row, recommender.catalogue.item_id(row), score, found.sources[row], found.said[row]) for row, score in entries])
    trace = Trace(query, None, None, arranged.moves, found.rung or "static", base=rows)
    return Answer(query.request.request_id, recommender.bundle.digest, items, degraded, trace=trace)


def again(recommender: Recommender, query: Query, rung: str, degraded: dict[str, str] | None) -> Answer:
    """A recorded list, made again from the rung it came from."""
    found = OtherList()
    names = [name for name, _ in steps(query)]
    for _, step in steps(query)[names.index(rung) :]:
        step(recommender, query, found)
        if enough(recommender, query, found):
            break
    return answered(recommender, query, found, degraded)


def anchor(recommender: Recommender, item_id: str) -> int:
    """The row of the item that others are to be like. Raises `NotInCatalogue`."""
    row = recommender.catalogue.row_of(item_id)
    if row < 0:
        message = f"item_id: the catalogue has no item {item_id[:128]!r}: check the id, or post the item"
        raise NotInCatalogue("item_id", "unknown_item", message)
    return row


def _withheld(recommender: Recommender, query: Query) -> Rows:
    """Rows that may not be shown: those of any list, and the item that was asked about."""
    if not query.request.similar_to:
        return query.withheld
    return np.append(query.withheld, np.int32(anchor(recommender, query.request.similar_to)))


def _permitted(recommender: Recommender, query: Query, rows: Rows) -> Rows:
    kept = recommender.rules.permits(rows) & np.isin(rows, _withheld(recommender, query), invert=True)
    if query.request.discover:
        kept &= np.isin(rows, query.history_rows, invert=True)
    return rows[kept]


def _alike(recommender: Recommender, query: Query, found: OtherList) -> None:
    """What each source says is like the item, by reciprocal rank (Cormack, Clarke, Buettcher 2009)."""
    row, catalogue = anchor(recommender, query.request.similar_to), recommender.catalogue
    barred = np.flatnonzero((recommender.rules.flags & recommender.rules.hard_bits) != 0).astype(np.int32)
    excluded = together(len(catalogue), query.excluded, _withheld(recommender, query), barred)
    told = [(source, source.alike(row, query.request.k, excluded).rows.tolist()) for source in _of_likeness(recommender)]
    scores: dict[int, float] = {}
    for _, rows in told:
        for rank, other in enumerate(rows):
            scores[other] = scores.get(other, 0.0) + 1.0 / (RANK_OFFSET + rank)
    places = [(source, {other: rank for rank, other in enumerate(rows)}) for source, rows in told]
    title = catalogue.readable_title(row)

    def best_first(other: int) -> list[Alike]:
        return [source for source, place in sorted(places, key=lambda pair: pair[1].get(other, len(catalogue))) if other in place]

    found.take(
        "full", sorted(scores, key=lambda other: (-scores[other], other)), lambda other: tuple(one.spec.kind for one in best_first(other)),
        lambda other: best_first(other)[0].likeness(query.verb, title),
    )  # fmt: skip


def _of_likeness(recommender: Recommender) -> list[Alike]:
    return [source for source in recommender.sources if isinstance(source, Alike)]


def _like_it(recommender: Recommender, query: Query, found: OtherList) -> None:
    """What most had of the item's own categories, the narrowest first."""
    catalogue = recommender.catalogue
    codes = catalogue.category[anchor(recommender, query.request.similar_to)].tolist()
    known = popular(recommender, query)
    for level in (2, 1, 0):
        if codes[level]:
            rows = known[catalogue.category[known, level] == codes[level]]
            name = catalogue.category_names[codes[level]].rsplit(" > ", 1)[-1]
            found.take("popular", rows.tolist(), lambda _: (FILLED_UP,), lambda _, name=name: f"Popular in {name}")  # type: ignore[misc]
            if enough(recommender, query, found):
                return


def _counted(recommender: Recommender, query: Query, found: OtherList) -> None:
    source = next((source for source in recommender.sources if isinstance(source, Counted)), None)
    if source is not None:
        rows = source.counted(query)
        permitted = _permitted(recommender, query, rows)[: query.request.k]
        found.take("full", permitted.tolist(), lambda _: (source.spec.kind,), lambda row: source.reason(query, row) or POPULAR)


def popular(recommender: Recommender, query: Query) -> Rows:
    """Rows that anybody had, best first: what a source counted, then the bundle's lists."""
    lists = [source.counted(query) for source in recommender.sources if isinstance(source, Counted)]
    fallback = recommender.bundle.fallback
    rows = np.concatenate((*lists, fallback.popular(query.request.region or query.state.region), fallback.static()))
    return rows[np.sort(np.unique(rows, return_index=True)[1])].astype(np.int32)


def _of_region(recommender: Recommender, query: Query, found: OtherList) -> None:
    rows = recommender.bundle.fallback.popular(query.request.region or query.state.region)
    found.take("popular", rows.tolist(), lambda _: (FILLED_UP,), lambda _: "Popular near you")


def _static(recommender: Recommender, query: Query, found: OtherList) -> None:
    found.take("static", recommender.bundle.fallback.static().tolist(), lambda _: (FILLED_UP,), lambda _: POPULAR)
    if not enough(recommender, query, found):
        rest = np.arange(len(recommender.catalogue), dtype=np.int32)
        found.take(
            "static",
            _permitted(recommender, query, rest)[: query.request.k + len(found.rows)].tolist(),
            lambda _: (FILLED_UP,),
            lambda _: "From the whole range",
        )
