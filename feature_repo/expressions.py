"""Each feature's one definition, as Ibis expressions: DuckDB runs them here, Spark the same ones beyond one machine.

`history` joins the four tables once; `user_stats` and `item_stats` read it as of a cut. Only rows strictly before the cut count:
the cut is the first thing each function filters by. The promotion plan that holds at the cut is known and therefore allowed.
"""

from collections.abc import Mapping
from datetime import datetime
from math import log1p
from typing import Any

import ibis
from ibis import _

from feature_repo.names import ITEM_FEATURES, USER_FEATURES
from feature_repo.schema import LEAST_WORTH, MOST_WORTH, PATH_SEPARATOR, SECONDS_A_DAY, Worth

Table = Any  # ibis types its tables loosely
LEVELS = ("department", "category", "type")
WINDOWS = (7, 14, 28)  # days


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
    known = items.select("item_id", "brand", **{name: _level(items.category, depth) for depth, name in enumerate(LEVELS)})
    nth = ibis.row_number().over(group_by=["user_id", "item_id"], order_by=["timestamp", "event_id"])
    marked = liked.left_join(_promoted(liked, context), "event_id").drop("event_id_right").join(known, "item_id")
    return marked.mutate(promoted=_.promoted.fill_null(0.0), repeat=(nth > 0).cast("float64"))


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


def _before(history: Table, cut: datetime) -> Table:
    """Rows strictly before the cut, with their age in days at it."""
    moment = ibis.timestamp(cut)
    age = (moment.epoch_seconds() - history.timestamp.epoch_seconds()) / SECONDS_A_DAY
    return history.filter(_.timestamp < moment).mutate(age=age)


def user_stats(history: Table, cut: datetime) -> Table:
    """`user_id` and `USER_FEATURES` at `cut`: one row a user with at least one positive event before it."""
    sums = _user_sums(_before(history, cut))
    gap = (sums.first_age - sums.last_age) / (sums.baskets - 1).nullif(0)
    named = sums.mutate(
        user_baskets_7=_log1p(sums.baskets_7),
        user_baskets_28=_log1p(sums.baskets_28),
        user_baskets_all=_log1p(sums.baskets),
        user_events_28=_log1p(sums.events_28),
        user_days_since_last=sums.last_age,
        user_gap_days=gap,
        user_due=(sums.last_age / gap.nullif(0.0) + 1).ln(),
        user_basket_size=sums.events / sums.baskets,
        user_items=_log1p(sums.items),
        user_categories=_log1p(sums.categories),
        user_brands=_log1p(sums.brands),
        user_stores=_log1p(sums.stores),
        user_repeat_share_28=sums.repeats_28 / sums.events_28.nullif(0),
        user_spend_28=_log1p(sums.spend_28),
        user_price=sums.price,
        user_promoted_share=sums.promoted,
        user_tenure_days=sums.first_age,
    )
    return _finished(named, "user_id", USER_FEATURES)


def _user_sums(rows: Table) -> Table:
    week, month = rows.age <= 7, rows.age <= 28
    return rows.group_by("user_id").aggregate(
        events=rows.count(),
        events_28=rows.count(where=month),
        baskets=rows.session.nunique(),
        baskets_7=rows.session.nunique(where=week),
        baskets_28=rows.session.nunique(where=month),
        items=rows.item_id.nunique(),
        categories=rows.type.nunique(),
        brands=rows.brand.nunique(),
        stores=rows.store.nunique(),
        repeats_28=rows.repeat.sum(where=month),
        spend_28=rows.spend.sum(where=month),
        price=rows.price.mean(),
        promoted=rows.promoted.mean(),
        first_age=rows.age.max(),
        last_age=rows.age.min(),
    )


def item_stats(history: Table, items: Table, context: Table, cut: datetime) -> Table:
    """`item_id` and `ITEM_FEATURES` at `cut`: one row an item of the catalogue; what needs a sale is null for an item never sold."""
    rows = _before(history, cut)
    known = items.select("item_id", "brand", **{name: _level(items.category, depth) for depth, name in enumerate(LEVELS)})
    wide = known.left_join(_item_sums(rows), "item_id").drop("item_id_right")
    wide = wide.left_join(_item_buyers(rows), "item_id").drop("item_id_right")
    wide = wide.left_join(_plan_shares(context, cut), "item_id").drop("item_id_right")
    month = rows.filter(rows.age <= 28)
    for name in (*LEVELS, "brand"):
        totals = month.group_by(name).aggregate(**{f"{name}_28": _.count()})
        wide = wide.left_join(totals, name).drop(f"{name}_right")
    medians = wide.group_by("type").aggregate(type_price=_.price.median())
    wide = wide.left_join(medians, "type").drop("type_right")
    return _finished(_item_named(wide), "item_id", ITEM_FEATURES)


def _item_sums(rows: Table) -> Table:
    return rows.group_by("item_id").aggregate(
        events=rows.count(),
        stores=rows.store.nunique(),
        price=rows.price.median(),
        promoted=rows.promoted.mean(),
        first_age=rows.age.max(),
        last_age=rows.age.min(),
        **{f"events_{days}": rows.count(where=rows.age <= days) for days in WINDOWS},
    )


def _item_buyers(rows: Table) -> Table:
    """Per item: its users, how many of them came back to it, the days they spanned and the gaps in them."""
    pairs = rows.group_by(["item_id", "user_id"]).aggregate(times=_.count(), first=_.age.max(), last=_.age.min())
    return pairs.group_by("item_id").aggregate(
        buyers=_.count(),
        again=_.count(where=_.times > 1),
        span=(_.first - _.last).sum(),
        gaps=_.times.sum() - _.count(),
        **{f"buyers_{days}": pairs.count(where=pairs.last <= days) for days in WINDOWS},
    )


def _plan_shares(context: Table, cut: datetime) -> Table:
    """Per item: the share of places that plan a display, and a mailer, at the cut."""
    moment = ibis.timestamp(cut)
    holding = context.filter((_.valid_from <= moment) & (_.valid_until > moment))
    places = holding.aggregate(places=_.place.nunique())
    shares = holding.group_by("item_id").aggregate(
        displays=_.place.nunique(where=_.display.notnull()), mailers=_.place.nunique(where=_.mailer.notnull())
    )
    return shares.cross_join(places)


def _item_named(wide: Table) -> Table:
    counts = {
        f"item_{kind}_{days}": _log1p(wide[f"{kind}_{days}" if days != "all" else kind])
        for kind in ("buyers", "events")
        for days in ("7", "14", "28", "all")
    }
    levels = {f"item_{name}_28": _log1p(wide[f"{name}_28"]) for name in (*LEVELS, "brand")}
    return wide.mutate(
        item_trend=_log1p(wide.buyers_7 * 4) - _log1p(wide.buyers_28),
        item_rebuy_rate=wide.again / wide.buyers,
        item_rebuy_gap_days=wide.span / wide.gaps.nullif(0),
        item_days_since_last=wide.last_age,
        item_days_since_first=wide.first_age,
        item_price=(wide.price + 1).ln(),
        item_relative_price=(wide.price.nullif(0.0) / wide.type_price.nullif(0.0)).ln(),
        item_type_share_28=wide.events_28.fill_null(0) / wide.type_28.nullif(0),
        item_stores=_log1p(wide.stores),
        item_promoted_share=wide.promoted,
        item_planned_display=wide.displays.fill_null(0) / wide.places.fill_null(1),
        item_planned_mailer=wide.mailers.fill_null(0) / wide.places.fill_null(1),
        **counts,
        **levels,
    )


def _log1p(count: Table) -> Table:
    """log(1 + count), a missing count being none."""
    return (count.fill_null(0) + 1).cast("float64").ln()


def _finished(named: Table, key: str, features: tuple[str, ...]) -> Table:
    return named.select(key, **{name: named[name].cast("float64") for name in features})
