"""The four tables every dataset enters as: the only definition of their columns, types, ranges and keys.

A folder with `events.parquet`, `items.parquet`, `users.parquet` and `context.parquet` is what `shortlist train --data DIR` takes.
All times are aware and in UTC, stored in microseconds (Feast on DuckDB refuses nanoseconds).
"""

from dataclasses import dataclass, field
from typing import Literal

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
)
CONSENTS = ("full", "aggregated", "minimal")
POLICY_FLAGS = ("recalled", "out_of_stock", "adult", "blocked")
PATH_SEPARATOR = " > "  # between the levels of items.category, widest first
CATEGORY_LEVELS = 3
UNKNOWN = "unknown"  # the value of a missing category level, brand or region


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


def _text(name: str, meaning: str, **more: object) -> Column:
    return Column(name, "string", meaning, **more)  # type: ignore[arg-type]


EVENTS = Table(
    "events",
    key=("event_id",),
    columns=(
        _text("event_id", "unique; sending it again changes nothing"),
        _text("event_type", "what happened", allowed=EVENT_TYPES),
        _text("user_id", "who"),
        _text("item_id", "with what"),
        Column("timestamp", "timestamp", "when, aware, UTC"),
        _text("session_id", "a visit: a basket, a home-page session", required=False),
        _text("device_type", "mobile, desktop, tv, store", required=False),
        Column("value", "float", "quantity bought, seconds watched", required=False, minimum=0),
        Column("price", "float", "unit price paid, currency units", required=False, minimum=0),
        _text("context_page", "page the item was seen on", required=False),
        _text("context_query", "search text", required=False),
        Column("context_position", "float", "0-based slot in the list", required=False, minimum=0),
        _text("context_store", "store or market", required=False),
        _text("context_region", "region of the request", required=False),
        _text("context_request_id", "the answer this event came from", required=False),
    ),
    references={"user_id": "users", "item_id": "items"},
)

ITEMS = Table(
    "items",
    key=("item_id",),
    columns=(
        _text("item_id", "catalogue id"),
        _text("category", f"path, widest first, joined by '{PATH_SEPARATOR}'", required=False),
        _text("brand", "brand, manufacturer or channel", required=False),
        _text("title", "what a person reads", required=False),
        Column("price", "float", "list price, currency units", required=False, minimum=0),
        Column("created_at", "timestamp", "when it entered the catalogue", required=False),
        _text("attributes", "JSON object of anything else", required=False),
        _text("policy_flags", "comma-separated, of POLICY_FLAGS", required=False),
    ),
)

USERS = Table(
    "users",
    key=("user_id",),
    columns=(
        _text("user_id", "who"),
        _text("age_band", "coarse", required=False),
        _text("income_band", "coarse", required=False),
        _text("household", "size and kind", required=False),
        _text("region", "where lists of popular items are cut", required=False),
        _text("consent", "what may be kept and learnt", allowed=CONSENTS),
        Column("created_at", "timestamp", "first seen", required=False),
    ),
)

CONTEXT = Table(
    "context",
    key=("item_id", "place", "valid_from"),
    columns=(
        _text("item_id", "the item planned for"),
        _text("place", "store or market"),
        Column("valid_from", "timestamp", "from when the plan holds"),
        Column("valid_until", "timestamp", "until when (exclusive)"),
        _text("display", "display location code; null: none", required=False),
        _text("mailer", "mailer location code; null: none", required=False),
    ),
    references={"item_id": "items"},
    may_be_empty=True,
)

TABLES = {table.name: table for table in (EVENTS, ITEMS, USERS, CONTEXT)}


SECONDS_A_DAY = 86_400.0
