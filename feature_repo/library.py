"""What features are made of: windows, counts, shares and gaps, from which a system picks under names of its own.

A feature is a name and an expression over sums, and each sum is taken over some rows of the past: the entity's own events, its pairs of
user and item, or those of all items of its category or brand; positive ones, or of any type. `feature_repo/expressions.py` takes the sums
and joins them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import Any, Literal

from feature_repo.schema import SECONDS_A_DAY

Table = Any  # ibis types its tables and values loosely


@dataclass(frozen=True)
class Before:
    """What is known at a cut."""

    rows: Table  # `history` before the cut, with `age` in days at it
    events: Table  # every event before the cut, of any type, with its `age` and the item's brand and category levels
    items: Table  # item_id, brand and the category levels of the catalogue, `attributes`, `days_old` at the cut
    context: Table  # plans, those to come too
    moment: Table  # the cut


@dataclass(frozen=True)
class Grain:
    """Rows of the past that are summed, and the column the entity shares with them; empty: its own key."""

    rows: Callable[[Before], Table]
    by: str = ""


@dataclass(frozen=True)
class Sum:
    """One aggregate over a grain's rows."""

    grain: Grain
    of: Callable[[Table], Table]


@dataclass(frozen=True)
class Feature:
    """A number of a user or an item: `of` its sums, each null where the entity has no row in the grain."""

    name: str
    sums: tuple[Sum, ...]
    of: Callable[..., Table]


OWN = Grain(lambda past: past.rows)
PAIRS = Grain(lambda past: _pairs(past.rows))
EVENTS = Grain(lambda past: past.events)
CONTENT = Grain(lambda past: past.items)
LIKED_CONTENT = Grain(lambda past: past.rows.join(past.items.select("item_id", "attributes"), "item_id"))
_LEVELS = ("department", "category", "type", "brand")
_GROUPS = {name: Grain(lambda past: past.rows, by=name) for name in _LEVELS}
_EVENT_GROUPS = {"": EVENTS, **{name: Grain(lambda past: past.events, by=name) for name in _LEVELS}}


def count(name: str, of: str = "", days: float | None = None) -> Feature:
    """log1p of events, or of distinct values of the column `of`, in the last `days`."""
    return Feature(name, (Sum(OWN, _counted(of, days)),), log1p)


def count_in(name: str, group: str, days: float | None = None) -> Feature:
    """log1p of events on all items of the item's `group`: a category level or the brand."""
    return Feature(name, (Sum(_GROUPS[group], _counted("", days)),), log1p)


def share_in(name: str, group: str, days: float | None = None) -> Feature:
    """The item's own share of those events."""
    sums = Sum(OWN, _counted("", days)), Sum(_GROUPS[group], _counted("", days))
    return Feature(name, sums, lambda own, all_of_them: own.fill_null(0) / all_of_them.nullif(0))


def happened(name: str, kind: str, days: float | None = None) -> Feature:
    """log1p of the events of one type, be it a positive or not."""
    return Feature(name, (Sum(EVENTS, _of_kind(kind, days)),), log1p)


def rate(name: str, of: str, per: str, usual: float, group: str = "", days: float | None = None, weight: float = 20.0) -> Feature:
    """Events of the type `of` for each of the type `per`: on the entity, or on all items of its `group`.

    Few say little: it is pulled to `usual` as if `weight` more had been seen.
    """
    grain = _EVENT_GROUPS[group]
    return Feature(name, (Sum(grain, _of_kind(of, days)), Sum(grain, _of_kind(per, days))), _pulled(usual, weight))


def value_rate(name: str, of: str, per: str, usual: float, group: str = "", days: float | None = None, weight: float = 20.0) -> Feature:
    """The same of the summed values (seconds, stars) of the type `of`."""
    grain = _EVENT_GROUPS[group]
    summed = Sum(grain, lambda rows: rows.value.sum(where=_those(rows, of, days)))
    return Feature(name, (summed, Sum(grain, _of_kind(per, days))), _pulled(usual, weight))


def share_of_events(name: str, column: str, value: str, days: float | None = None) -> Feature:
    """Share of all events whose text `column` is `value`."""
    told = Sum(EVENTS, lambda rows: rows.count(where=_both(rows[column] == value, _within(rows, days))))
    return Feature(
        name, (told, Sum(EVENTS, lambda rows: rows.count(where=_within(rows, days)))), lambda some, every: some / every.nullif(0)
    )


def time_of_day(name: str, wave: Literal["sin", "cos"]) -> Feature:
    """Mean sine or cosine of the time of day (UTC) of the events: both together the usual hour, their length how firm a habit it is."""

    def turned(rows: Table) -> Table:
        angle = (rows.timestamp.epoch_seconds() % SECONDS_A_DAY).cast("float64") * (2 * pi / SECONDS_A_DAY)
        return (angle.sin() if wave == "sin" else angle.cos()).mean()

    return Feature(name, (Sum(OWN, turned),), _itself)


def attribute(name: str, key: str) -> Feature:
    """log1p of a number in the item's attributes; null where it is not told."""
    return Feature(name, (Sum(CONTENT, lambda rows: _number(rows, key).max()),), lambda value: (value + 1).ln())


def having(name: str, key: str, text: str) -> Feature:
    """1 where the item's attribute is that text, else 0."""
    return Feature(name, (Sum(CONTENT, lambda rows: _has(rows, key, text).max()),), _itself)


def mean_attribute(name: str, key: str) -> Feature:
    """log1p of the mean of a number in the attributes of what the user had."""
    return Feature(name, (Sum(LIKED_CONTENT, lambda rows: _number(rows, key).mean()),), lambda value: (value + 1).ln())


def share_having(name: str, key: str, text: str) -> Feature:
    """Share of what the user had whose attribute is that text."""
    return Feature(name, (Sum(LIKED_CONTENT, lambda rows: _has(rows, key, text).mean()),), _itself)


def days_old(name: str) -> Feature:
    """log1p of days since the item entered the catalogue; null where that is not told, or yet to come."""
    return Feature(name, (Sum(CONTENT, lambda rows: rows.days_old.max()),), lambda days: (days + 1).ln())


def share(name: str, of: str, days: float | None = None) -> Feature:
    """Share of events in the last `days` whose column `of` is 1."""
    summed = Sum(OWN, lambda rows: rows[of].sum(where=_within(rows, days)))
    return Feature(name, (summed, Sum(OWN, _counted("", days))), lambda some, every: some / every.nullif(0))


def total(name: str, of: str, days: float | None = None) -> Feature:
    """log1p of the column's sum in the last `days`."""
    return Feature(name, (Sum(OWN, lambda rows: rows[of].sum(where=_within(rows, days))),), log1p)


def mean(name: str, of: str) -> Feature:
    """The column's mean."""
    return Feature(name, (Sum(OWN, lambda rows: rows[of].mean()),), _itself)


def log_median(name: str, of: str) -> Feature:
    """log1p of the column's median; null where nothing is known."""
    return Feature(name, (Sum(OWN, lambda rows: rows[of].median()),), lambda median: (median + 1).ln())


def relative_price(name: str, group: str) -> Feature:
    """log of the median unit price over the median of those of the item's `group`."""
    priced = Grain(lambda past: past.rows.group_by([group, "item_id"]).aggregate(price=past.rows.price.median()), by=group)
    sums = Sum(OWN, lambda rows: rows.price.median()), Sum(priced, lambda rows: rows.price.median())
    return Feature(name, sums, lambda own, usual: (own.nullif(0.0) / usual.nullif(0.0)).ln())


def days_since_last(name: str) -> Feature:
    """Days since the last event."""
    return Feature(name, (_LAST,), _itself)


def days_since_first(name: str) -> Feature:
    """Days since the first event."""
    return Feature(name, (_FIRST,), _itself)


def gap_days(name: str, of: str) -> Feature:
    """Mean days between distinct values of the column `of`, a visit for one; null where there is one alone."""
    return Feature(name, (_FIRST, _LAST, Sum(OWN, _counted(of, None))), _gap)


def due(name: str, of: str) -> Feature:
    """log1p of days since the last event / that gap: above log 2 the next one is late."""
    return Feature(
        name,
        (_FIRST, _LAST, Sum(OWN, _counted(of, None))),
        lambda first, last, times: (last / _gap(first, last, times).nullif(0.0) + 1).ln(),
    )


def mean_size(name: str, of: str) -> Feature:
    """Events for each distinct value of the column `of`, a visit for one."""
    return Feature(name, (Sum(OWN, _counted("", None)), Sum(OWN, _counted(of, None))), lambda events, times: events / times)


def trend(name: str, of: str, short: float, long: float) -> Feature:
    """log1p(distinct `of` of the `short` days, brought to `long`) - log1p(those of the `long` days): above 0 on the rise."""
    lately, before = (Sum(OWN, _counted(of, days)) for days in (short, long))
    return Feature(name, (lately, before), lambda some, all_of_them: log1p(some * (long / short)) - log1p(all_of_them))


def rebuy_rate(name: str) -> Feature:
    """Users with two or more events on the item / its users."""
    again = Sum(PAIRS, lambda pairs: pairs.count(where=pairs.times > 1))
    return Feature(name, (again, Sum(PAIRS, lambda pairs: pairs.count())), lambda some, every: some / every)


def rebuy_gap_days(name: str) -> Feature:
    """Mean days between one user's events on the item."""
    spanned = Sum(PAIRS, lambda pairs: (pairs.first - pairs.last).sum())
    gaps = Sum(PAIRS, lambda pairs: pairs.times.sum() - pairs.count())
    return Feature(name, (spanned, gaps), lambda days, times: days / times.nullif(0))


def log1p(number: Table) -> Table:
    """log(1 + number), a missing one being none."""
    return (number.fill_null(0) + 1).cast("float64").ln()


def _itself(value: Table) -> Table:
    return value


def _within(rows: Table, days: float | None) -> Table:
    return None if days is None else rows.age <= days


def _of_kind(kind: str, days: float | None) -> Callable[[Table], Table]:
    return lambda rows: rows.count(where=_those(rows, kind, days))


def _those(rows: Table, kind: str, days: float | None) -> Table:
    return _both(rows.event_type == kind, _within(rows, days))


def _both(one: Table, other: Table) -> Table:
    return one if other is None else one & other


def _pulled(usual: float, weight: float) -> Callable[..., Table]:
    return lambda some, every: (some.fill_null(0) + usual * weight) / (every.fill_null(0) + weight)


def _number(rows: Table, key: str) -> Table:
    """A number in a JSON text; by a pattern, since no one function is the same on DuckDB and on Spark."""
    return rows.attributes.re_extract(f'"{key}": *(-?[0-9.]+)', 1).nullif("").cast("float64")


def _has(rows: Table, key: str, text: str) -> Table:
    return rows.attributes.fill_null("").re_search(f'"{key}": *"{text}"').cast("float64")


def _counted(of: str, days: float | None) -> Callable[[Table], Table]:
    return lambda rows: rows[of].nunique(where=_within(rows, days)) if of else rows.count(where=_within(rows, days))


def _gap(first: Table, last: Table, times: Table) -> Table:
    return (first - last) / (times - 1).nullif(0)


def _pairs(rows: Table) -> Table:
    """A row a user and item: how often, and the ages of its first and last event."""
    return rows.group_by(["item_id", "user_id"]).aggregate(times=rows.count(), first=rows.age.max(), last=rows.age.min())


_FIRST, _LAST = Sum(OWN, lambda rows: rows.age.max()), Sum(OWN, lambda rows: rows.age.min())
