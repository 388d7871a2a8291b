"""The item table at a cut: what is known of every item, and what is planned for it in the weeks that follow.

Shapes: I items, Fi item features, P places, W planned periods.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.features.tables import Tables
from feature_repo.schema import CATEGORY_LEVELS, PATH_SEPARATOR, POLICY_FLAGS, UNKNOWN
from serving.bundle.catalogue import Catalogue

MOST_PLAN_BYTES = 2 << 30  # of both plans: every item in every place; a bundle may hold no more in all
MOST_PERIODS = 8  # planned periods kept: a plan that changes more often than this within two horizons is cut short


@dataclass(frozen=True)
class ItemBase:
    """What no cut changes: a catalogue without features and plan, and what each cut hides of it."""

    catalogue: Catalogue
    created_day: NDArray[np.float64]  # (I,) NaN: not given
    list_price: NDArray[np.float32]  # (I,) NaN: not given


def open_shelf(tables: Tables, feature_names: tuple[str, ...]) -> ItemBase:
    """Number categories, brands, places and plan codes once, so that codes agree between cuts."""
    rows = tables.arrow("SELECT *, epoch_us(created_at) / 86400e6 AS created_day FROM items ORDER BY item_row")
    category_names, category = _category_codes(rows["category"].to_pylist())
    brand_names, brand = _codes(rows["brand"].to_pylist(), UNKNOWN)
    titles = [(title or item).encode() for title, item in zip(rows["title"].to_pylist(), rows["item_id"].to_pylist(), strict=True)]
    count = len(tables.item_ids)
    empty = np.empty((0, 0, count), np.uint8)
    catalogue = Catalogue(
        item_ids=tables.item_ids,
        keys=tables.keys,
        key_order=np.argsort(tables.keys, kind="stable").astype(np.int32),
        category=category,
        brand=brand,
        created_day=np.full(count, np.nan),
        price=np.full(count, np.nan, np.float32),
        flags=np.array([_flag_bits(flags) for flags in rows["policy_flags"].to_pylist()], np.uint8),
        title_bytes=np.frombuffer(b"".join(titles), np.uint8),
        title_ends=np.cumsum([len(title) for title in titles], dtype=np.int64),
        features=np.empty((count, 0), np.float32),
        plan_display=empty,
        plan_mailer=empty,
        plan_from=np.empty(0),
        plan_until=np.empty(0),
        feature_names=feature_names,
        category_names=category_names,
        brand_names=brand_names,
        places=_distinct(tables, "place"),
        display_codes=("", *_distinct(tables, "display")),
        mailer_codes=("", *_distinct(tables, "mailer")),
        cut_day=float("nan"),
    )
    return ItemBase(catalogue, _floats(rows["created_day"]), _floats(rows["price"]).astype(np.float32))


def build_item_table(tables: Tables, shelf: ItemBase, day: float, horizon_days: int, features: NDArray[np.float32]) -> Catalogue:
    """The catalogue as of `day`. `features` (I, Fi) in the order of the item ids."""
    names = shelf.catalogue.feature_names
    known = ~(shelf.created_day >= day)  # NaN: not dated, taken as known
    paid = np.expm1(features[:, names.index("item_price")]) if "item_price" in names else np.full(len(known), np.nan, np.float32)
    periods = _periods(tables, day, horizon_days)
    display, mailer = _plan(tables, shelf.catalogue, periods)
    return replace(
        shelf.catalogue,
        created_day=np.where(known, shelf.created_day, np.nan),
        price=np.where(known & ~np.isnan(shelf.list_price), shelf.list_price, paid).astype(np.float32),
        features=features,
        plan_display=display,
        plan_mailer=mailer,
        plan_from=np.array([begin for begin, _ in periods]),
        plan_until=np.array([end for _, end in periods]),
        cut_day=day,
    )


def _periods(tables: Tables, day: float, horizon_days: int) -> list[tuple[float, float]]:
    """The stretches between two changes of the plan that touch [day, day + two horizons), ascending."""
    bounds = tables.arrow(
        """SELECT DISTINCT epoch_us(bound) / 86400e6 AS bound
        FROM (SELECT DISTINCT unnest([valid_from, valid_until]) AS bound FROM raw_context) ORDER BY bound"""
    )["bound"].to_numpy()
    stretches = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    return [(begin, end) for begin, end in stretches if end > day and begin < day + 2 * horizon_days][:MOST_PERIODS]


def _plan(tables: Tables, catalogue: Catalogue, periods: list[tuple[float, float]]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Display and mailer codes of every item in every place in each period: (W, P, I) twice."""
    shape = (len(periods), len(catalogue.places), len(catalogue))
    if (size := 2 * int(np.prod(shape, dtype=np.int64))) > MOST_PLAN_BYTES:
        told = f"the table context plans {shape[0]} periods in {shape[1]:,} places for {shape[2]:,} items: {size:,} bytes, at most"
        raise ValueError(f"{told} {MOST_PLAN_BYTES:,}: plan by region instead of by place")
    display, mailer = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    place_of = {place: index for index, place in enumerate(catalogue.places)}
    display_of = {code: index for index, code in enumerate(catalogue.display_codes)}
    mailer_of = {code: index for index, code in enumerate(catalogue.mailer_codes)}
    for w, (begin, end) in enumerate(periods):
        rows = tables.arrow(
            f"""SELECT item_row, place, max(coalesce(display, '')) AS display, max(coalesce(mailer, '')) AS mailer
            FROM raw_context JOIN items USING (item_id)
            WHERE valid_from <= to_timestamp({begin * 86400.0!r}) AND valid_until >= to_timestamp({end * 86400.0!r})
            GROUP BY item_row, place"""
        )
        at = rows["item_row"].to_numpy()
        where = _translated(rows["place"], place_of)
        display[w, where, at] = _translated(rows["display"], display_of)
        mailer[w, where, at] = _translated(rows["mailer"], mailer_of)
    return display, mailer


def _translated(column: Any, code_of: dict[str, int]) -> NDArray[np.int64]:
    """Each text's code; texts are few, so the dictionary is translated and not the rows."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = np.array([code_of[text] for text in encoded.dictionary.to_pylist()], np.int64)
    return codes[encoded.indices.to_numpy()] if len(codes) else np.empty(0, np.int64)


def _category_codes(paths: list[str | None]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Names of all paths at all levels, and (I, 3) the code of each item's path down to each level; 0 unknown.

    A level that a path does not have is its parent's: items of one department without shelves are of one shelf.
    """
    split = {path: tuple(path.split(PATH_SEPARATOR))[:CATEGORY_LEVELS] for path in set(paths) if path}
    levels = {path: [PATH_SEPARATOR.join(parts[: depth + 1]) for depth in range(len(parts))] for path, parts in split.items()}
    names = (UNKNOWN, *sorted({name for found in levels.values() for name in found}))
    code_of = {name: code for code, name in enumerate(names)}
    coded = {path: [code_of[found[min(depth, len(found) - 1)]] for depth in range(CATEGORY_LEVELS)] for path, found in levels.items()}
    none = [0] * CATEGORY_LEVELS
    return names, np.array([coded.get(path or "", none) for path in paths], np.int32).reshape(-1, CATEGORY_LEVELS)


def _codes(texts: list[str | None], first: str) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    names = (first, *sorted({text for text in texts if text and text != first}))
    code_of = {name: code for code, name in enumerate(names)}
    return names, np.array([code_of.get(text or first, 0) for text in texts], np.int32)


def _flag_bits(flags: str | None) -> int:
    return sum(1 << POLICY_FLAGS.index(flag.strip()) for flag in (flags or "").split(",") if flag.strip())


def _distinct(tables: Tables, column: str) -> tuple[str, ...]:
    found = tables.arrow(f"SELECT DISTINCT {column} AS found FROM raw_context WHERE {column} IS NOT NULL")["found"].to_pylist()
    return tuple(sorted(found))


def _floats(column: Any) -> NDArray[np.float64]:
    return column.to_numpy(zero_copy_only=False).astype(np.float64)  # type: ignore[no-any-return]
