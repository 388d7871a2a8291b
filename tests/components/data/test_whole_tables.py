"""What a table must be as a whole, at each limit and just beyond, and the paragraph that refuses one."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from components.data import validate as gate
from components.data.event_types import meaning_of
from components.data.read import BadData
from components.data.refusal import refusal
from components.data.rows import Verdict
from components.data.validate import BadTable, checked, count_suite, of_system, row_suite, validate, whole_frame, whole_suite
from feature_repo.schema import EVENT_TYPES, TABLES
from serving import event_meanings
from serving.system import System, load_system
from tests.components.data.gate_tables import GOOD, MONDAY, Row, events, rows_of, write_all
from tests.serving.tiny_bundle import system

SYSTEM = system()
BAD, UNKNOWN = "value: below 0", "item_id: not in items"
CORRECT = "Correct the data and start again."
ACCEPT = "They were compared with Monday's. If they are meant to be so, start again with --accept."
ALIKE = "Are ids written alike in both tables? What was withdrawn may stay in items with policy_flags 'blocked'."
SECOND = MONDAY.timestamp()
BEFORE = {"accepted": 10, "newest_second": SECOND}


def said(
    name: str,
    rows_in: int,
    reasons: Mapping[str, int],
    *,
    before: dict[str, Any] | None = None,
    newest: float | None = SECOND,
    codes: int = 0,
) -> str:
    """What is said of a table of so many rows; nothing where it is taken."""
    verdict = Verdict(rows_in, reasons, dict.fromkeys(reasons, "e7"))
    counts = {column.name: codes for column in TABLES[name].columns if column.most_values is not None}
    checks = checked(whole_suite(TABLES[name], before), whole_frame(verdict, newest, counts))
    told = {
        "rows_in": rows_in, "accepted": verdict.accepted, "set_aside": verdict.set_aside, "reasons": verdict.reasons,
        "examples": verdict.examples, "expectations": checks,
    }  # fmt: skip
    return refusal(name, told, "Monday's") if not all(check["success"] for check in checks) else ""


HELD: dict[str, Any] = {"before": BEFORE}
BETWEEN = "expected at least 5 and at most 100"
NOON = "expected at least 2024-03-04 12:00 UTC"
SHARE, WITHDRAWN = "share set aside is", "share of unknown items or users is"
CODES = "; ".join(f"different values of {column} is 256, expected at most 255" for column in ("display", "mailer"))


@pytest.mark.parametrize(
    ("name", "rows_in", "reasons", "more", "failed", "advice"),
    [
        ("events", 20, {BAD: 1}, {}, "", ""),
        ("events", 39, {BAD: 2}, {}, f"{SHARE} {2 / 39}, expected at most 0.05", CORRECT),
        ("events", 2, {UNKNOWN: 1}, {}, "", ""),
        ("events", 3, {UNKNOWN: 2}, {}, f"{WITHDRAWN} {2 / 3}, expected at most 0.5", ALIKE),
        ("context", 3, {UNKNOWN: 2}, {}, "", ""),
        ("context", 0, {}, {}, "", ""),
        ("items", 0, {}, {}, "rows accepted is 0, expected at least 1", CORRECT),
        ("users", 1, {BAD: 1}, {}, f"rows accepted is 0, expected at least 1; {SHARE} 1.0, expected at most 0.05", CORRECT),
        ("context", 5, {}, {"codes": 255}, "", ""),
        ("context", 5, {}, {"codes": 256}, CODES, CORRECT),
        ("users", 5, {}, HELD, "", ""),
        ("users", 100, {}, HELD, "", ""),
        ("users", 4, {}, HELD, f"rows accepted is 4, {BETWEEN}", ACCEPT),
        ("users", 101, {}, HELD, f"rows accepted is 101, {BETWEEN}", ACCEPT),
        ("users", 1, {}, {"before": {"accepted": 0, "newest_second": None}}, "", ""),
        ("events", 10, {}, HELD, "", ""),
        ("events", 10, {}, {**HELD, "newest": SECOND - 60}, f"newest second is 2024-03-04 11:59 UTC, {NOON}", ACCEPT),
        ("events", 10, {}, {**HELD, "newest": None}, f"newest second is 1970-01-01 00:00 UTC, {NOON}", ACCEPT),
        ("events", 10, {}, {"before": {"accepted": 10, "newest_second": None}}, "", ""),
        ("context", 10, {}, {**HELD, "newest": SECOND - 60}, "", ""),  # plans may end sooner
        # where too much is bad the data are to be corrected, not accepted, though fewer are left
        ("events", 20, {BAD: 16}, HELD, f"rows accepted is 4, {BETWEEN}; {SHARE} 0.8, expected at most 0.05", CORRECT),
    ],
)
def test_a_table_is_taken_up_to_each_limit_and_beyond_it_refused_with_what_how_many_an_example_and_what_to_do(
    name: str, rows_in: int, reasons: Mapping[str, int], more: dict[str, Any], failed: str, advice: str
) -> None:
    told = "; ".join(f"{count} with {reason} (for example e7)" for reason, count in reasons.items())
    aside = f"{sum(reasons.values())} of {rows_in} rows were set aside" + (f": {told}" if told else "")
    assert said(name, rows_in, reasons, **more) == (f"The table {name} is refused: {failed}. {aside}. {advice}" if failed else "")


def test_rows_that_went_nowhere_stop_the_run() -> None:
    lost = Verdict(3, {}, {})
    frame = whole_frame(lost, SECOND, {}).assign(**{"rows unaccounted for": [1]})
    failed = [check["kwargs"]["column"] for check in checked(whole_suite(TABLES["items"], None), frame) if not check["success"]]
    assert failed == ["rows unaccounted for"]
    assert whole_frame(lost, SECOND, {"display": 3}).iloc[0].to_dict() == {
        "rows accepted": 3, "share set aside": 0, "share of unknown items or users": 0, "rows unaccounted for": 0,
        "newest second": SECOND, "different values of display": 3,
    }  # fmt: skip


def asked(name: str, table: Any = None) -> dict[tuple[str, str], dict[str, Any]]:
    """What is expected of each column of accepted rows."""
    suite = row_suite(table or TABLES[name])
    told = {(one.expectation_type.removeprefix("expect_column_"), one.column): one.configuration.kwargs for one in suite}
    assert len(told) == len(suite)
    return told


@pytest.mark.parametrize("name", TABLES)
def test_every_promise_about_rows_is_asked_of_what_was_accepted(name: str) -> None:
    table = TABLES[name]
    expected = {("values_to_be_unique", "key"), *(("to_exist", column) for column in table.names)}
    expected |= {("values_to_not_be_null", column.name) for column in table.columns if column.required}
    expected |= {("values_to_be_of_type", column.name) for column in table.columns if column.kind == "float"}
    expected |= {("values_to_be_between", column.name) for column in table.columns if column.kind != "string"}  # each has a limit
    expected |= {("values_to_be_in_set", column.name) for column in table.columns if column.allowed}
    expected |= {("values_to_be_in_set", f"{column} known") for column in table.references}
    assert set(asked(name)) == expected


def test_limits_are_the_schemas() -> None:
    told = asked("events", of_system(TABLES["events"], SYSTEM))
    assert [told["values_to_be_between", "context_position"][edge] for edge in ("min_value", "max_value")] == [0, 1e6]
    assert [str(told["values_to_be_between", "timestamp"][edge])[:10] for edge in ("min_value", "max_value")] == [
        "1990-01-01",
        "2100-01-01",
    ]
    assert told["values_to_be_of_type", "price"]["type_"] == "float64"
    assert told["values_to_be_in_set", "item_id known"]["value_set"] == [True]
    assert told["values_to_be_in_set", "event_type"]["value_set"] == list(SYSTEM.event_types)


def test_of_counted_promises_none_may_be_broken() -> None:
    frame = pd.DataFrame({"consent: missing": [0], "value: below 0": [1], "negative": [-1]})
    assert [check["success"] for check in checked(count_suite(frame), frame)] == [True, False, False]


def test_an_outcome_says_what_was_asked_and_found_and_nothing_of_the_run() -> None:
    frame = pd.DataFrame({"a": [5]})
    (check,) = checked(count_suite(frame), frame)
    assert check == {
        "expectation": "expect_column_values_to_be_between",
        "kwargs": {"column": "a", "min_value": 0.0, "max_value": 0.0},
        "success": False,
        "result": {"element_count": 1, "unexpected_count": 1, "partial_unexpected_list": [5]},
    }


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def bad(count: int, of: int) -> list[Row]:
    return events(of, value=dict.fromkeys(range(count), -1.0))


def test_the_folder_holds_the_tables_what_was_set_aside_what_was_asked_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is compared with a run that never was; a table is looked at as a frame up to so many rows, and counted beyond."""
    monkeypatch.setattr(gate, "ROWS_IN_MEMORY", 2)
    late = events(41, value={0: -1.0}, timestamp={40: MONDAY + timedelta(days=1)})
    write_all(tmp_path, events=late, users=rows_of("users", {}), context=[])
    out = tmp_path / "out"
    validate(SYSTEM, tmp_path, out, tmp_path / "never was", now=(MONDAY + timedelta(hours=23)).isoformat())
    homes = (("", "parquet"), ("quarantine/", "parquet"), ("expectations/", "json"))
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {f"{folder}{name}.{kind}" for folder, kind in homes for name in TABLES} | {"docs/index.html", "report.json"}
    assert pq.read_metadata(out / "quarantine" / "events.parquet").num_rows == 2
    found = report(out)
    assert (found["system"], found["passed"], list(found["tables"])) == (SYSTEM.name, True, ["items", "users", "events", "context"])
    assert capsys.readouterr().out == "".join(f"{note}\n" for note in found["notes"])
    assert found["notes"][0].startswith("1 of 41 rows of events lie ahead of now")
    told = found["tables"]["events"]
    assert json.loads((out / "expectations" / "events.json").read_text()) == told["expectations"]
    assert (told["rows_in"], told["accepted"], told["set_aside"], told["bad"], told["passed"]) == (41, 39, 2, 2, True)
    assert told["reasons"] == {"timestamp: ahead of now": 1, "value: below 0": 1}
    assert told["examples"] == {"timestamp: ahead of now": "e40", "value: below 0": "e0"}
    assert told["newest_second"] == (MONDAY.replace(hour=0) + timedelta(minutes=39)).timestamp()
    columns = {name: [check["kwargs"]["column"] for check in table["expectations"]] for name, table in found["tables"].items()}
    assert ("key" in columns["users"], "key" in columns["events"]) == (True, False)
    assert ("value: below 0" in columns["users"], "value: below 0" in columns["events"]) == (False, True)
    assert columns["context"][0] == "rows accepted"  # of no rows nothing is asked


def test_what_is_refused_leaves_a_report_and_a_page_that_say_so_and_events_are_held_against_the_last_run(tmp_path: Path) -> None:
    last, out = tmp_path / "last", tmp_path / "out"
    last.mkdir()
    (last / "report.json").write_text(json.dumps({"tables": {"users": BEFORE}}))
    with pytest.raises(BadTable) as caught:
        validate(SYSTEM, write_all(tmp_path), out, last, "Monday's")
    assert str(caught.value).startswith("The table users is refused: rows accepted is 1, expected at least 5")
    assert str(caught.value).endswith(ACCEPT)
    assert (report(out)["passed"], list(report(out)["tables"])) == (False, ["items", "users"])
    assert "failed" in (out / "docs" / "index.html").read_text()


def test_without_a_moment_now_is_now_and_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    write_all(tmp_path, events=[{**GOOD["events"], "timestamp": datetime.now(UTC) + timedelta(hours=1)}])
    with pytest.raises(BadTable, match="1 with timestamp: ahead of now"):
        validate(SYSTEM, tmp_path, tmp_path / "out")
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(BadData, match="there is no table items"):
        validate(SYSTEM, tmp_path, tmp_path / "out")
    assert report(tmp_path / "out") == {"system": SYSTEM.name, "passed": False, "tables": {}}


@pytest.fixture
def own(tmp_path: Path) -> System:
    file = tmp_path / "own.py"
    file.write_text(
        "from dataclasses import replace\nfrom serving.event_meanings import Positive, Signal\nfrom serving.systems import shop\n"
        'OWN = replace(shop.SHOP, name="own", events={"purchase": Positive(), "sneeze": Signal(0.2)})\n'
    )
    return load_system(str(file))


def test_events_of_a_type_that_a_system_names_itself_are_its_own_and_others_are_refused_with_what_to_do(
    tmp_path: Path, own: System
) -> None:
    write_all(tmp_path, events=events(3, event_type=dict.fromkeys(range(3), "sneeze")))
    with pytest.raises(BadTable) as caught:
        validate(SYSTEM, tmp_path, tmp_path / "out")
    assert f"{CORRECT} The events' types are sneeze 3 (unknown; nearest:" in str(caught.value)
    assert of_system(TABLES["events"], own).columns[1].allowed == own.event_types
    assert "sneeze" in own.event_types
    assert of_system(TABLES["users"], own) is TABLES["users"]


@pytest.mark.parametrize("name", [*EVENT_TYPES, "sneeze", "un_hide", "unfollow"])
def test_of_every_type_a_meaning_can_be_proposed_as_a_system_file_says_it(name: str) -> None:
    kind, _, rest = meaning_of(name).partition("(")
    made = getattr(event_meanings, kind)(*([float(rest.rstrip(")"))] if rest != ")" else []))
    assert type(made).__name__ == kind
