"""Features as Ibis expressions: DuckDB runs them here, Spark the same ones beyond one machine.

`history` joins the four tables once; `stats` reads it as of a cut and makes the features a system picks (`feature_repo/library.py`).
Only rows strictly before the cut count: the cut is the first thing it filters by. The promotion plan that holds at the cut is known
and therefore allowed.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import log1p
from typing import Any

import ibis
from ibis import _

from feature_repo.library import Before, Feature, Grain, Sum
from feature_repo.schema import LEAST_WORTH, MOST_WORTH, PATH_SEPARATOR, SECONDS_A_DAY, Worth

Table = Any  # ibis types its tables loosely
LEVELS = ("department", "category", "type")


def history(events: Table, items: Table, context: Table, positives: Mapping[str, Worth]) -> Table:
    """Positive events with their weight, what is known of the item, whether the sale was planned to be promoted, and which time it was for
    the user. Independent of any cut: `nth` and `promoted` look at nothing later than the event.
    """
    counted = events.filter(_.event_type.isin(tuple(positives))).mutate(weight=worth(events.event_type, events.value, positives))
    liked = counted.filter(_.weight > 0).select(
        "event_id",
        "user_id",
        "item_id",
        "timestamp",
        "price",
        "weight",
        session=_.session_id.coalesce(_.event_id),
        store=_.context_store,
        spend=(_.value * _.price).fill_null(0.0),
    )
    nth = ibis.row_number().over(group_by=["user_id", "item_id"], order_by=["timestamp", "event_id"])
    marked = liked.left_join(_promoted(liked, context), "event_id").drop("event_id_right").join(_catalogue(items), "item_id")
    return marked.mutate(promoted=_.promoted.fill_null(0.0), repeat=(nth > 0).cast("float64"))


def _catalogue(items: Table) -> Table:
    """`item_id`, its brand and its category at each level."""
    return items.select("item_id", "brand", **{name: _level(items.category, depth) for depth, name in enumerate(LEVELS)})


def _content(items: Table, moment: Table) -> Table:
    """The same, the attributes, and days since each entered the catalogue: null where it is not told, or yet to come."""
    old = (moment.epoch_seconds() - items.created_at.epoch_seconds()) / SECONDS_A_DAY
    dated = items.select("item_id", "attributes", days_old=ibis.ifelse(old > 0, old, None).cast("float64"))
    return _catalogue(items).join(dated, "item_id")


def _aged(rows: Table, moment: Table) -> Table:
    """Those strictly before the moment, with their `age` in days at it."""
    age = (moment.epoch_seconds() - rows.timestamp.epoch_seconds()) / SECONDS_A_DAY
    return rows.filter(_.timestamp < moment).mutate(age=age)


def worth(kind: Table, value: Table, positives: Mapping[str, Worth]) -> Table:
    """What an event of a type counts by its value: `Worth.of`, for a column."""
    branches = []
    for name, of in sorted(positives.items()):
        weight = ibis.literal(float(of.weight))
        if of.usual is not None:
            told = (value + 1).ln() / log1p(of.usual)
            bounded = ibis.least(ibis.greatest(told, LEAST_WORTH), MOST_WORTH)  # of a null these give a bound
            weight = ibis.ifelse(value.notnull(), of.weight * bounded, of.weight)
        if of.at_least is not None:
            weight = ibis.ifelse(value.fill_null(-1.0) >= of.at_least, weight, 0.0)
        branches.append((kind == name, weight))
    return ibis.cases(*branches, else_=0.0)


def _level(category: Table, depth: int) -> Table:
    """The category path down to `depth` (0 widest); where the path is shorter, the whole of it: a missing level inherits its parent's."""
    exact = (PATH_SEPARATOR.join([".*?"] * (down + 1)) for down in range(depth, -1, -1))
    return ibis.coalesce(*(category.re_extract(f"^({levels})(?:{PATH_SEPARATOR}.*)?$", 1).nullif("") for levels in exact))


def _promoted(liked: Table, context: Table) -> Table:
    """`event_id, promoted = 1` of events whose item was on display or in a mailer in their store at their time."""
    periods = context.select("valid_from", "valid_until").distinct()
    placed = liked.filter(_.store.notnull()).select("event_id", "item_id", "timestamp", place=_.store)
    placed = placed.join(periods, [placed.timestamp >= periods.valid_from, placed.timestamp < periods.valid_until])
    planned = context.filter(context.display.notnull() | context.mailer.notnull())
    met = placed.join(planned.select("item_id", "place", "valid_from", "valid_until"), ["item_id", "place", "valid_from", "valid_until"])
    return met.select("event_id").distinct().mutate(promoted=ibis.literal(1.0))


def stats(features: Sequence[Feature], key: str, history: Table, events: Table, items: Table, context: Table, cut: datetime) -> Table:
    """`key` (user_id or item_id) and the features at `cut`: a row for each user with an event before it, or each item of the catalogue."""
    moment = ibis.timestamp(cut)
    past = Before(
        _aged(history, moment), _aged(events, moment).join(_catalogue(items), "item_id"), _content(items, moment), context, moment
    )
    wide = past.items if key == "item_id" else past.rows.select(key).distinct()
    needed: dict[Grain, dict[str, Sum]] = {}
    for feature in features:
        for number, one in enumerate(feature.sums):
            needed.setdefault(one.grain, {})[_column(feature, number)] = one
    for grain, sums in needed.items():
        rows, by = grain.rows(past), grain.by or key
        summed = rows.group_by(by).aggregate(**{column: one.of(rows) for column, one in sums.items()})
        wide = wide.left_join(summed, by).drop(f"{by}_right")
    made = {one.name: one.of(*(wide[_column(one, number)] for number in range(len(one.sums)))) for one in features}
    return wide.select(key, **{name: value.cast("float64") for name, value in made.items()})


def _column(feature: Feature, number: int) -> str:
    return f"{feature.name} sum {number}"
