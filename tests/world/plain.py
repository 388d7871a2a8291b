"""A plain shop of forty users and fifty items over eight weeks, as rows that a test may spoil before it writes them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.data.read import arrow_schema
from feature_repo.schema import TABLES

END = datetime(2025, 3, 3, tzinfo=UTC)  # a Monday; every event lies before it
Rows = dict[str, list[dict[str, Any]]]


def plain(users: int = 40, items: int = 50, weeks: int = 8, types: tuple[str, ...] = ("purchase",), seed: int = 0) -> Rows:
    """Each user comes every two or three days and takes two of five favourites; each taking is one event of each of `types`."""
    random = np.random.default_rng(seed)
    rows: Rows = {"events": [], "users": [], "context": []}
    rows["items"] = [
        {
            "item_id": f"i{n}",
            "category": f"dept {n % 2} > shelf {n % 6}",
            "brand": f"brand {n % 4}",
            "title": f"Thing {n}",
            "price": 1.0 + n,
        }
        for n in range(items)
    ]
    for user in range(users):
        rows["users"].append({"user_id": f"u{user}", "region": f"r{user % 2}", "consent": "full"})
        favourites = random.choice(items, 5, replace=False)
        day = float(random.random() * 2)
        while day < weeks * 7:
            moment = END - timedelta(days=weeks * 7 - day)
            for item in random.choice(favourites, 2, replace=False).tolist():
                for kind in types:
                    rows["events"].append(
                        {"event_id": f"e{len(rows['events'])}", "event_type": kind, "user_id": f"u{user}", "item_id": f"i{item}",
                         "timestamp": moment, "session_id": f"s{user}-{day:.2f}", "value": 1.0, "price": 1.0 + item}
                    )  # fmt: skip
            day += 2 + float(random.random())
    rows["events"].sort(key=lambda event: (event["timestamp"], event["event_id"]))
    return rows


def table_of(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    schema = arrow_schema(TABLES[name])
    return pa.Table.from_pylist([{column: row.get(column) for column in schema.names} for row in rows], schema=schema)


def write(rows: Mapping[str, list[dict[str, Any]]], folder: Path) -> Path:
    """The tables that `rows` names, as Parquet under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, held in rows.items():
        pq.write_table(table_of(name, held), folder / f"{name}.parquet")
    return folder
