"""Features of the naive build, written the plain way: one numpy expression a column, arrays indexed by candidate.

The columns and their meaning are the product's (`serving/ranking/features.py`, `serving/ranking/affinity.py`), because the same networks
read them; the code is its own and stays as it is when the product's gets faster. Shapes: C candidates, H history items, E session events,
Fr, Fx features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import cross_names
from serving.system import System

Array = NDArray[Any]
TAU_60, TAU_15 = 2, 0  # columns of the decayed counts
NEVER = 400.0


@dataclass
class Items:
    """What the build keeps of the catalogue in memory, as arrays by item row."""

    ids: list[str]
    titles: list[str]
    row_of: dict[str, int]
    category: Array  # (I, 3) codes
    brand: Array  # (I,)
    price: Array  # (I,)
    features: Array  # (I, Fi)
    flags: Array  # (I,)
    created: Array  # (I,) days since 1970
    display: Array  # (places, I) of the running week
    mailer: Array  # (places, I)
    places: dict[str, int]


def request_row(user: dict[str, Any], now: float) -> Array:
    """(Fr,) what is the same for all candidates."""
    hour, weekday = 2 * np.pi * (now % 1.0), 2 * np.pi * ((now + 3.0) % 7.0) / 7.0
    decayed = user["decayed"] * np.exp(-(now - user["last"])[:, None] / np.array([15.0, 30.0, 60.0, 150.0]))
    last = user["last"].max() if len(user["last"]) else now - NEVER
    context = [
        np.sin(hour), np.cos(hour), np.sin(weekday), np.cos(weekday), 1.0,
        np.log1p(len(user["items"])), np.log1p(user["counts"].sum()), np.log1p(decayed[:, TAU_15].sum()),
        np.log1p(max(now - last, 0.0)), 0.0, np.log1p(max(now - user["created"], 0.0)),
    ]  # fmt: skip
    return np.concatenate([context, user["features"]]).astype(np.float32)


def cross_rows(user: dict[str, Any], items: Items, rows: Array, scores: Array, found: Array, now: float, system: System) -> Array:
    """(C, Fx) what depends on user and candidate. `scores`, `found`: the search's score of each candidate, and whether it found it."""
    names = cross_names(system.kinds)
    out: dict[str, Array] = {}
    history = np.array([items.row_of[item] for item in user["items"]], np.int64)  # (H,)
    age, span = now - user["last"], user["last"] - user["first"]
    counts = user["counts"]
    decayed = user["decayed"] * np.exp(-age[:, None] / np.array([15.0, 30.0, 60.0, 150.0]))
    _own(out, history, decayed, counts, age, span, rows)
    category, wanted = items.category[history], items.category[rows]
    for level in (2, 1, 0):
        out[f"share_category_{level}"] = _share(category[:, level], decayed[:, TAU_60], wanted[:, level])
        out[f"recent_category_{level}"] = _share(category[:, level], decayed[:, TAU_15], wanted[:, level])
        out[f"log_items_category_{level}"] = np.log1p(_total(category[:, level], np.ones(len(history)), wanted[:, level]))
    _rhythm(out, category[:, 2], counts, age, span, wanted[:, 2])
    _brand(out, items, history, decayed[:, TAU_60], rows)
    _price(out, items, history, decayed[:, TAU_60], rows)
    place = items.places.get(user["place"], 0)
    out["display_here"], out["mailer_here"] = items.display[place, rows] != 0, items.mailer[place, rows] != 0
    fused = 1 / (60 + np.arange(len(rows)))
    out["fused"], out["fused_relative"], out["sources"] = fused * 60, fused / fused.max(), found
    out["score_two_tower"] = np.sign(scores) * np.log1p(np.abs(scores))
    out["relative_two_tower"] = np.log1p(1000 * np.abs(scores) / np.abs(scores).max())
    out["rank_two_tower"] = np.where(found, fused * 60, 0)
    return np.column_stack([out.get(name, np.zeros(len(rows))) for name in names]).astype(np.float32)


def _own(out: dict[str, Array], history: Array, decayed: Array, counts: Array, age: Array, span: Array, rows: Array) -> None:
    """How often, how lately and how regularly the user had the very item."""
    position = {row: at for at, row in enumerate(history.tolist())}
    at = np.array([position.get(row, -1) for row in rows.tolist()])
    seen = at >= 0
    gap = span / np.maximum(counts - 1, 1)
    columns = {
        **{f"own_decayed_{tau}": np.log1p(decayed[:, column]) for column, tau in enumerate((15, 30, 60, 150))},
        "own_log_count": np.log1p(counts),
        "own_log_days_since_last": np.log1p(age),
        "own_log_mean_gap": np.log1p(gap),
        "own_due": np.where(counts < 2, 0, np.log1p(np.minimum(age / np.maximum(gap, 1), 8))),
        "own_once": counts < 2,
    }
    for name, column in columns.items():
        out[name] = np.where(seen, column[at], 0)
    out["seen"] = seen


def _total(codes: Array, weights: Array, wanted: Array) -> Array:
    """Weight of each candidate's code."""
    return np.bincount(codes, weights, minlength=int(wanted.max()) + 1)[wanted]


def _share(codes: Array, weights: Array, wanted: Array) -> Array:
    return np.sqrt(_total(codes, weights, wanted) / max(weights.sum(), 1e-6))


def _rhythm(out: dict[str, Array], codes: Array, counts: Array, age: Array, span: Array, wanted: Array) -> None:
    """Events, days since the last, and how due the candidate's category is."""
    size = int(max(codes.max(initial=0), wanted.max())) + 1
    newest, oldest = np.full(size, NEVER), np.zeros(size)
    np.minimum.at(newest, codes, age)
    np.maximum.at(oldest, codes, age + span)
    events = np.bincount(codes, counts, minlength=size)
    gap = (oldest - newest) / np.maximum(events - 1, 1)
    due = np.where(events > 1, np.log1p(np.minimum(newest / np.maximum(gap, 1), 8)), 0)
    out["log_events_category_2"], out["log_days_since_category_2"], out["due_category_2"] = (
        np.log1p(events)[wanted], np.log1p(newest)[wanted], due[wanted],
    )  # fmt: skip


def _brand(out: dict[str, Array], items: Items, history: Array, weights: Array, rows: Array) -> None:
    """The brand's share of the history, and of the history in the candidate's category."""
    liked, offered = items.brand[history], items.brand[rows]
    out["share_brand"] = _share(liked, weights, offered)
    pairs, asked = liked * 10_000 + items.category[history, 1], offered * 10_000 + items.category[rows, 1]
    known, inverse = np.unique(pairs, return_inverse=True)
    sums = np.bincount(inverse, weights, minlength=1)
    at = np.minimum(np.searchsorted(known, asked), max(len(known) - 1, 0))
    both = known[at] == asked if len(known) else np.zeros(len(rows), bool)
    of_category = _total(items.category[history, 1], weights, items.category[rows, 1])
    out["brand_within_category"] = np.where(both, sums[at], 0) / np.maximum(of_category, 1e-6)


def _price(out: dict[str, Array], items: Items, history: Array, weights: Array, rows: Array) -> None:
    """The candidate's price over what the user pays in its category."""
    codes, wanted = items.category[history, 1], items.category[rows, 1]
    total = _total(codes, weights, wanted)
    paid = _total(codes, weights * np.log(np.maximum(items.price[history], 0.01)), wanted)
    known = total > 0
    usual = paid / np.maximum(total, 1e-6)
    out["price_relative"] = np.clip(np.where(known, np.log(np.maximum(items.price[rows], 0.01)) - usual, 0), -3, 3)
    out["price_known"] = known
