"""Every promise of the schema about a single row or a key, broken alone, just kept, and at its edge."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.duck import connect
from components.data.rows import LEFT_OUT, Verdict, sort_out
from feature_repo.schema import TABLES
from tests.components.data.gate_tables import GOOD, MONDAY, Row, rows_of, write

NOW = MONDAY + timedelta(days=1)
LONG, TOO_LONG = "x" * 256, "x" * 257


class Gate:
    """A connection, and the tables sorted out in it so far."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.connection = folder, connect()

    def sort(self, table: str, rows: list[Row], now: datetime | None = NOW) -> Verdict:
        return self.sort_file(table, write(self.folder, table, rows), now)

    def sort_file(self, table: str, path: Path, now: datetime | None = NOW) -> Verdict:
        return sort_out(
            self.connection, TABLES[table], path, self.folder / f"good_{table}.parquet", self.folder / "q" / f"{table}.parquet", now
        )

    def before(self, table: str) -> None:
        """What is held against other tables needs them."""
        for other in ("items", "users"):
            if other != table:
                self.sort(other, [GOOD[other]])

    def kept(self, table: str) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / f"good_{table}.parquet").to_pylist()

    def aside(self, table: str) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / "q" / f"{table}.parquet").to_pylist()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


WRONG: list[tuple[str, Row, str]] = [
    ("events", {"event_id": None}, "event_id: missing"),
    ("events", {"event_id": ""}, "event_id: empty"),
    ("events", {"event_type": None}, "event_type: missing"),
    ("events", {"event_type": "sneeze"}, "event_type: not an allowed value"),
    ("events", {"user_id": None}, "user_id: missing"),
    ("events", {"user_id": ""}, "user_id: empty"),
    ("events", {"user_id": "nobody"}, "user_id: not in users"),
    ("events", {"item_id": TOO_LONG}, "item_id: not in items"),
    ("events", {"timestamp": None}, "timestamp: missing"),
    ("events", {"timestamp": datetime(1989, 12, 31, 23, 59, 59, tzinfo=UTC)}, "timestamp: before 1990-01-01 or after 2100-01-01"),
    ("events", {"timestamp": datetime(2100, 1, 1, tzinfo=UTC)}, "timestamp: before 1990-01-01 or after 2100-01-01"),
    ("events", {"timestamp": NOW + timedelta(microseconds=1)}, "timestamp: ahead of now"),
    ("events", {"session_id": TOO_LONG}, "session_id: longer than 256 characters"),
    ("events", {"session_id": "a\tb"}, "session_id: holds a control character"),
    ("events", {"value": -0.001}, "value: below 0"),
    ("events", {"value": 1.001e12}, "value: above 1e+12"),
    ("events", {"price": float("inf")}, "price: not a finite number"),
    ("events", {"price": float("-inf")}, "price: not a finite number"),
    ("events", {"context_position": 1e6 + 1}, "context_position: above 1e+06"),
    ("events", {"context_query": "q" * 1025}, "context_query: longer than 1024 characters"),
    ("items", {"item_id": "i\x7f"}, "item_id: holds a control character"),
    ("items", {"item_id": TOO_LONG}, "item_id: longer than 256 characters"),
    ("items", {"policy_flags": "recalled,shiny"}, "policy_flags: not of the known flags"),
    ("items", {"policy_flags": "shiny"}, "policy_flags: not of the known flags"),
    ("items", {"attributes": "{"}, "attributes: not JSON"),
    ("items", {"attributes": ""}, "attributes: not JSON"),
    ("users", {"consent": None}, "consent: missing"),
    ("users", {"consent": ""}, "consent: empty"),
    ("users", {"consent": "perhaps"}, "consent: not an allowed value"),
    ("context", {"item_id": "another"}, "item_id: not in items"),
    ("context", {"place": None}, "place: missing"),
    ("context", {"valid_until": MONDAY}, "valid_until: not after valid_from"),
    ("context", {"valid_until": MONDAY - timedelta(days=1)}, "valid_until: not after valid_from"),
]
RIGHT: list[tuple[str, Row]] = [
    ("events", {"timestamp": datetime(1990, 1, 1, tzinfo=UTC)}),
    ("events", {"timestamp": NOW}),
    ("events", {"value": 0.0, "price": 1e12, "context_position": 1e6}),
    ("events", {"session_id": LONG, "context_query": "q" * 1024}),
    ("events", {"session_id": "", "context_query": "of\tseveral\nlines"}),  # a text may be empty, and people type what they like
    ("items", {"item_id": LONG, "price": 0.0, "title": "t" * 1024, "attributes": "{}", "policy_flags": ""}),
    ("items", {"policy_flags": " recalled , blocked,"}),
    ("users", {"user_id": "日" * 256, "consent": "aggregated"}),
    ("context", {"valid_until": MONDAY + timedelta(microseconds=1)}),
]


@pytest.mark.parametrize(("table", "change", "reason"), WRONG, ids=[f"{table}: {reason}" for table, _, reason in WRONG])
def test_a_row_that_breaks_one_promise_is_set_aside_for_it_and_the_good_one_beside_it_is_not(
    gate: Gate, table: str, change: Row, reason: str
) -> None:
    gate.before(table)
    rows = rows_of(table, change)
    verdict = gate.sort(table, rows)
    assert (verdict.rows_in, dict(verdict.reasons)) == (2, {reason: 1})
    assert (verdict.set_aside, verdict.accepted) == (1, 1)
    assert verdict.bad == (reason not in LEFT_OUT)
    assert verdict.unknown == (": not in " in reason)
    assert [told["reason"] for told in gate.aside(table)] == [reason]
    assert len(gate.kept(table)) == 1
    first = TABLES[table].key[0]
    assert verdict.examples[reason].split(", ")[0] == ("null" if rows[1][first] is None else rows[1][first])


@pytest.mark.parametrize(("table", "change"), RIGHT)
def test_a_row_at_the_edge_is_kept_as_it_is(gate: Gate, table: str, change: Row) -> None:
    gate.before(table)
    verdict = gate.sort(table, rows_of(table, change))
    assert (verdict.reasons, verdict.accepted) == ({}, 2)
    assert (gate.folder / f"good_{table}.parquet").read_bytes() == (gate.folder / f"{table}.parquet").read_bytes()


def test_a_row_has_the_first_reason_alone_and_most_frequent_reasons_come_first(gate: Gate) -> None:
    gate.before("events")
    worst: Row = {"event_id": "", "user_id": "nobody", "value": -1.0}
    verdict = gate.sort("events", rows_of("events", worst, {"value": -1.0}, {"value": -2.0}))
    assert list(verdict.reasons.items()) == [("value: below 0", 2), ("event_id: empty", 1)]
    assert verdict.examples == {"value: below 0": "e2", "event_id: empty": ""}
    assert [row["reason"] for row in gate.aside("events")] == ["event_id: empty", "value: below 0", "value: below 0"]  # as they came


def test_without_another_moment_now_is_now(gate: Gate) -> None:
    gate.before("events")
    late = {"timestamp": datetime.now(UTC) + timedelta(hours=1)}
    verdict = gate.sort("events", rows_of("events", late, {"timestamp": datetime.now(UTC) - timedelta(hours=1)}), None)
    assert verdict.reasons == {"timestamp: ahead of now": 1}


def test_of_one_key_the_first_good_row_stays_and_the_same_row_again_is_no_mistake(gate: Gate) -> None:
    gate.before("events")
    twin = {"event_id": "twin"}
    rows = rows_of("events", {**twin, "value": -1.0}, {**twin, "value": 2.0}, {**twin, "value": 2.0}, {**twin, "value": 3.0})
    verdict = gate.sort("events", rows)
    assert verdict.reasons == {"value: below 0": 1, "the same row again": 1, "repeated key: event_id": 1}
    assert (verdict.bad, verdict.unknown, verdict.accepted) == (2, 0, 2)
    assert [(row["event_id"], row["value"]) for row in gate.kept("events")] == [("e0", None), ("twin", 2.0)]
    assert verdict.examples["the same row again"] == "twin"


def test_a_key_of_several_columns_is_one_only_where_all_agree(gate: Gate) -> None:
    gate.before("context")
    later = {"valid_from": MONDAY + timedelta(hours=1)}
    verdict = gate.sort("context", [*rows_of("context", {"place": "north", **later}), {**GOOD["context"], "display": "front"}])
    assert verdict.reasons == {"repeated key: item_id, place, valid_from": 1}
    assert verdict.examples["repeated key: item_id, place, valid_from"].startswith("i0, north, 2024-03-04 12:00:00")
    assert [row["valid_from"] for row in gate.kept("context")] == [MONDAY, MONDAY + timedelta(hours=1)]


def test_of_who_consents_to_minimal_use_nothing_is_kept_but_that(gate: Gate) -> None:
    gate.sort("items", [GOOD["items"]])
    verdict = gate.sort("users", rows_of("users", {"consent": "minimal", "region": "east"}, {"region": "west"}))
    assert (verdict.reasons, verdict.accepted) == ({}, 3)
    assert [(row["user_id"], row["consent"], row["region"]) for row in gate.kept("users")] == [
        ("u0", "full", None), ("u1", "minimal", None), ("u2", "full", "west"),
    ]  # fmt: skip
    verdict = gate.sort("events", rows_of("events", {"user_id": "u1", "value": -1.0}, {"user_id": "u2"}))
    reason = "user_id: consents to minimal use"
    assert (verdict.reasons, verdict.examples, verdict.bad) == ({reason: 1}, {reason: ""}, 0)
    assert gate.aside("events") == [{**dict.fromkeys(TABLES["events"].names), "reason": reason}]
    assert [row["user_id"] for row in gate.kept("events")] == ["u0", "u2"]


def test_what_is_not_a_number_is_not_known_and_a_column_that_may_be_empty_may_be_absent(gate: Gate) -> None:
    gate.before("events")
    path = write(gate.folder, "events", rows_of("events", {"price": float("nan"), "value": 2.0}))
    assert gate.sort_file("events", path).reasons == {}
    assert [(row["price"], row["value"]) for row in gate.kept("events")] == [(None, None), (None, 2.0)]
    pq.write_table(pq.read_table(path).drop_columns(["price", "context_region"]), path)
    verdict = gate.sort_file("events", path)
    assert (verdict.reasons, verdict.accepted) == ({}, 2)
    assert pq.read_schema(gate.folder / "good_events.parquet").names == list(TABLES["events"].names)
    assert [(row["price"], row["context_region"]) for row in gate.kept("events")] == [(None, None)] * 2


def test_a_column_beside_the_schemas_is_let_go(gate: Gate) -> None:
    path = write(gate.folder, "items", rows_of("items", {"attributes": "{"}))
    pq.write_table(pq.read_table(path).append_column("shelf", pa.array([1, 2])), path)
    assert gate.sort_file("items", path).reasons == {"attributes: not JSON": 1}
    assert pq.read_schema(gate.folder / "good_items.parquet").names == list(TABLES["items"].names)
    assert pq.read_schema(gate.folder / "q" / "items.parquet").names == [*TABLES["items"].names, "reason"]


def test_a_name_with_a_quotation_mark_is_a_name(gate: Gate) -> None:
    folder = gate.folder / "it's here"
    gate.folder = folder
    assert gate.sort("items", rows_of("items", {"item_id": "o'clock"})).accepted == 2
    ((found,),) = gate.connection.execute("SELECT count(*) FROM good_items").fetchall()
    assert found == 2


def test_a_table_sorted_out_again_takes_the_place_of_the_first(gate: Gate) -> None:
    gate.sort("items", rows_of("items", {"attributes": "{"}, {"item_id": ""}))
    assert gate.sort("items", rows_of("items")).reasons == {}
    with pytest.raises(duckdb.Error):
        gate.connection.execute("SELECT * FROM good_users")


def test_a_verdict_tells_bad_rows_from_those_left_out() -> None:
    verdict = Verdict(20, {"value: below 0": 1, "the same row again": 2, "item_id: not in items": 3, "user_id: not in users": 4}, {})
    assert (verdict.set_aside, verdict.bad, verdict.unknown, verdict.accepted) == (10, 1, 7, 10)
