"""The four tables every dataset enters as: the only definition of their columns, types, ranges, widths and keys.

A folder with `events.parquet`, `items.parquet`, `users.parquet` and `context.parquet` is what `shortlist train --data DIR` takes.
All times are aware and in UTC, stored in microseconds (Feast on DuckDB refuses nanoseconds).

What an id is and how wide a text may be is said once, here: the data gate (`components/data/`) and the server (`serving/messages.py`)
both read it, so whatever may be learnt may also be asked for.
"""

from dataclasses import dataclass, field
from math import isnan, log1p
from typing import Literal, NamedTuple

Kind = Literal["string", "float", "timestamp"]

EVENT_TYPES = (
    "impression",
    "product_view",
    "video_view",
    "click",
    "add_to_cart",
    "purchase",
    "watch",
    "like",
    "dislike",
    "hide",
    "unhide",
)
CONSENTS = ("full", "aggregated", "minimal")
POLICY_FLAGS = ("recalled", "out_of_stock", "adult", "blocked")
PATH_SEPARATOR = " > "  # between the levels of items.category, widest first
CATEGORY_LEVELS = 3
UNKNOWN = "unknown"  # the value of a missing category level, brand or region
SECONDS_A_DAY = 86_400.0
EARLIEST, LATEST = "1990-01-01", "2100-01-01"  # a time outside is a wrong unit, not a time

LONGEST_ID = 256  # characters (code points) of an id or a name: they stand in arrays as wide as the longest
LONGEST_TEXT = 1024  # characters of a text that people read or type
CONTROL = r"[\x00-\x1f\x7f]"  # never in an id or a name: they are parts of keys and lines, and fixed-width arrays lose trailing zeros
NO_CONTROL = r"^[^\x00-\x1f\x7f]*(?!\n)$"  # the same, as a JSON schema says it: all of the text (`$` alone would let a last newline pass)
MOST_AMOUNT = 1e12  # of a price or a quantity
MOST_POSITION = 1e6
MOST_CODES = 255  # different values of a column whose codes are one byte; code 0 is "none"


LEAST_WORTH, MOST_WORTH = 0.1, 3.0  # between which an event's value can move its weight: no single one outweighs a habit


class Worth(NamedTuple):
    """How much a positive event counts: `weight`, and where its value says how much was liked, more or less by the value's logarithm."""

    weight: float = 1.0
    usual: float | None = None  # the value of which an event counts `weight`; None: the value does not matter
    at_least: float | None = None  # an event with less, or without a value, is no positive

    def of(self, value: float) -> float:
        """What one event counts; 0 for one that is no positive. `value`: NaN where it is not known, which counts as the usual one.

        `feature_repo.expressions.worth` is the same for tables.
        """
        if self.at_least is not None and not value >= self.at_least:
            return 0.0
        if self.usual is None or isnan(value):
            return self.weight
        return self.weight * min(max(log1p(value) / log1p(self.usual), LEAST_WORTH), MOST_WORTH)


@dataclass(frozen=True)
class Column:
    """One column: its kind, whether it may be empty, and the values it may hold."""

    name: str
    kind: Kind
    meaning: str
    required: bool = True  # False: the column may hold nulls (it must still be there)
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | None = None
    longest: int | None = None  # characters of a text
    plain: bool = False  # True: without control characters
    most_values: int | None = None  # different values in the whole table


@dataclass(frozen=True)
class Table:
    """A table: its columns in order, its key, and the columns that must be found in another table's key."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    references: dict[str, str] = field(default_factory=dict)  # column -> table it must exist in
    may_be_empty: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def _id(name: str, meaning: str) -> Column:
    return Column(name, "string", meaning, longest=LONGEST_ID, plain=True)


def _name(name: str, meaning: str, **more: object) -> Column:
    """A short text that is a key somewhere; it may be missing unless `more` says otherwise."""
    return Column(name, "string", meaning, longest=LONGEST_ID, plain=True, **{"required": False, **more})  # type: ignore[arg-type]


def _text(name: str, meaning: str, longest: int | None = LONGEST_TEXT) -> Column:
    return Column(name, "string", meaning, required=False, longest=longest)


def _one_of(name: str, meaning: str, allowed: tuple[str, ...]) -> Column:
    return Column(name, "string", meaning, allowed=allowed)


def _amount(name: str, meaning: str, maximum: float = MOST_AMOUNT) -> Column:
    return Column(name, "float", meaning, required=False, minimum=0, maximum=maximum)


EVENTS = Table(
    "events",
    key=("event_id",),
    columns=(
        _id("event_id", "unique; sending it again changes nothing"),
        _one_of("event_type", "what happened", EVENT_TYPES),
        _id("user_id", "who"),
        _id("item_id", "with what"),
        Column("timestamp", "timestamp", "when, aware, UTC"),
        _name("session_id", "a visit: a basket, a home-page session"),
        _name("device_type", "mobile, desktop, tv, store"),
        _amount("value", "quantity bought, seconds watched"),
        _amount("price", "unit price paid, currency units"),
        _name("context_page", "page the item was seen on"),
        _text("context_query", "search text"),
        _amount("context_position", "0-based slot in the list", MOST_POSITION),
        _name("context_store", "store or market"),
        _name("context_region", "region of the request"),
        _name("context_request_id", "the answer this event came from"),
    ),
    references={"user_id": "users", "item_id": "items"},
)

ITEMS = Table(
    "items",
    key=("item_id",),
    columns=(
        _id("item_id", "catalogue id"),
        _text("category", f"path, widest first, joined by '{PATH_SEPARATOR}'"),
        _name("brand", "brand, manufacturer or channel"),
        _text("title", "what a person reads"),
        _amount("price", "list price, currency units"),
        Column("created_at", "timestamp", "when it entered the catalogue", required=False),
        _text("attributes", "JSON object of anything else", longest=None),
        _text("policy_flags", "comma-separated, of POLICY_FLAGS"),
    ),
)

USERS = Table(
    "users",
    key=("user_id",),
    columns=(
        _id("user_id", "who"),
        _name("age_band", "coarse"),
        _name("income_band", "coarse"),
        _name("household", "size and kind"),
        _name("region", "where lists of popular items are cut"),
        _one_of("consent", "what may be kept and learnt", CONSENTS),
        Column("created_at", "timestamp", "first seen", required=False),
    ),
)

CONTEXT = Table(
    "context",
    key=("item_id", "place", "valid_from"),
    columns=(
        _id("item_id", "the item planned for"),
        _name("place", "store or market", required=True),
        Column("valid_from", "timestamp", "from when the plan holds"),
        Column("valid_until", "timestamp", "until when (exclusive)"),
        _name("display", "display location code; null: none", most_values=MOST_CODES),
        _name("mailer", "mailer location code; null: none", most_values=MOST_CODES),
    ),
    references={"item_id": "items"},
    may_be_empty=True,
)

TABLES = {table.name: table for table in (EVENTS, ITEMS, USERS, CONTEXT)}
