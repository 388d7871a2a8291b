"""What may be learnt from: bad rows set aside with their reason, a bad table stopped, and a page that shows both.

Three looks at each table, all derived from `feature_repo/schema.py`: every row (`rows.py`), then Great Expectations over what was accepted,
then Great Expectations over the table as a whole: share of bad rows, volume and freshness against what was accepted before.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.duck import connect
from components.data.event_types import sentence_of_unknown
from components.data.ingest import open_table
from components.data.notes import notes_of
from components.data.read import BadData, check_columns
from components.data.refusal import refusal
from components.data.report_page import write_page
from components.data.rows import Verdict, sort_out
from components.data.summary import broken, compact, newest_second, types_given, values_of
from feature_repo.schema import EARLIEST, EVENTS, LATEST, TABLES, Table
from serving.system import System

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

MOST_BAD = 0.05  # share of a table's rows that may be bad; more is a broken feed, not bad rows
MOST_UNKNOWN = 0.5  # share of events of items or users that their tables do not hold; more is a table of another export, not withdrawals
LEAST_VOLUME, MOST_VOLUME = 0.5, 10.0  # rows accepted, as multiples of the last accepted run's
ROWS_IN_MEMORY = 2_000_000  # a larger table is given to Great Expectations as exact counts
ORDER = ("items", "users", "events", "context")  # referenced tables first


class BadTable(BadData):
    """A table must not be learnt from. The message says what failed, on how many rows, with an example."""


def validate(
    system: System, tables: Path, out: Path, last_accepted: Path | None = None, compared_with: str = "the last accepted ones", now: str = ""
) -> None:
    """Write the accepted tables, `quarantine/<table>.parquet` with `reason`, `report.json`, `expectations/` and `docs/index.html`.

    `last_accepted`: the output of the last accepted run, to compare volume and freshness with; `compared_with` says in words which that is.
    `now` (ISO, with its offset; default: the clock's): no event is later. Raises `BadData` when a table cannot be read, `BadTable` when it
    must not be learnt from; the report and the page are written either way.
    """
    before = _last_report(last_accepted)
    (out / "quarantine").mkdir(parents=True, exist_ok=True)
    (out / "expectations").mkdir(exist_ok=True)
    connection = connect()
    report: dict[str, Any] = {"system": system.name, "passed": False, "tables": {}}
    moment = datetime.fromisoformat(now) if now else datetime.now(UTC)
    try:
        for name in ORDER:
            table = of_system(TABLES[name], system)
            with open_table(table, tables) as file:
                check_columns(table, file.schema_arrow)
            places = (tables / f"{name}.parquet", out / f"{name}.parquet", out / "quarantine" / f"{name}.parquet")
            verdict = sort_out(connection, table, *places, moment)
            looked = _looked_at(connection, table, verdict, before.get(name), out)
            report["tables"][name] = looked
            if not looked["passed"]:
                remedy = sentence_of_unknown(system, types_given(connection, table))
                raise BadTable(" ".join(filter(None, (refusal(name, looked, compared_with), remedy))))
        report["notes"] = notes_of(report["tables"])
        report["passed"] = True
    finally:
        connection.close()
        (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        write_page(report, out / "docs" / "index.html")
    for note in report["notes"]:
        print(note, flush=True)


def of_system(table: Table, system: System) -> Table:
    """The table as this system reads it: events may also be of the types it names itself."""
    if table.name != EVENTS.name:
        return table
    columns = (replace(column, allowed=system.event_types) if column.name == "event_type" else column for column in table.columns)
    return replace(table, columns=tuple(columns))


def _last_report(last_accepted: Path | None) -> dict[str, Any]:
    path = last_accepted / "report.json" if last_accepted else None
    tables: dict[str, Any] = json.loads(path.read_text())["tables"] if path and path.is_file() else {}
    return tables


def _looked_at(
    connection: "duckdb.DuckDBPyConnection", table: Table, verdict: Verdict, before: dict[str, Any] | None, out: Path
) -> dict[str, Any]:
    """One table's entry in the report."""
    newest = newest_second(connection, table)
    small = verdict.accepted <= ROWS_IN_MEMORY
    frame = compact(connection, table) if small else broken(connection, table)
    row_checks = checked(row_suite(table) if small else count_suite(frame), frame) if verdict.accepted else []
    whole = whole_frame(verdict, newest, values_of(connection, table))
    checks = row_checks + checked(whole_suite(table, before), whole)
    (out / "expectations" / f"{table.name}.json").write_text(json.dumps(checks, indent=1) + "\n")
    return {
        "rows_in": verdict.rows_in,
        "accepted": verdict.accepted,
        "set_aside": verdict.set_aside,
        "bad": verdict.bad,
        "reasons": dict(verdict.reasons),
        "examples": dict(verdict.examples),
        "newest_second": newest,
        "expectations": checks,
        "passed": all(check["success"] for check in checks),
    }


def row_suite(table: Table) -> list[Any]:
    """The schema's promises about accepted rows, as expectations over `summary.compact`."""
    from great_expectations import expectations as gxe

    suite: list[Any] = [gxe.ExpectColumnValuesToBeUnique(column="key")]
    for column in table.columns:
        suite.append(gxe.ExpectColumnToExist(column=column.name))
        if column.required:
            suite.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name))
        if column.kind == "float":
            suite.append(gxe.ExpectColumnValuesToBeOfType(column=column.name, type_="float64"))
        if column.kind == "timestamp":
            # aware limits: a naive or other column cannot be compared with them, and fails
            first, last = datetime.fromisoformat(f"{EARLIEST}T00:00:00+00:00"), datetime.fromisoformat(f"{LATEST}T00:00:00+00:00")
            suite.append(gxe.ExpectColumnValuesToBeBetween(column=column.name, min_value=first, max_value=last))
        if column.minimum is not None or column.maximum is not None:
            suite.append(gxe.ExpectColumnValuesToBeBetween(column=column.name, min_value=column.minimum, max_value=column.maximum))
        if column.allowed is not None:
            suite.append(gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=list(column.allowed)))
    suite += [gxe.ExpectColumnValuesToBeInSet(column=f"{column} known", value_set=[True]) for column in table.references]
    return suite


def count_suite(frame: "pd.DataFrame") -> list[Any]:
    """Every count of `summary.broken` is zero."""
    from great_expectations import expectations as gxe

    return [gxe.ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=0) for column in frame.columns]


def whole_frame(verdict: Verdict, newest: float | None, values: dict[str, int]) -> "pd.DataFrame":
    """What is looked at of a table as a whole: one row, a column a question."""
    import pandas as pd

    rows = max(verdict.rows_in, 1)
    balance = verdict.rows_in - verdict.accepted - verdict.set_aside
    return pd.DataFrame(
        {
            "rows accepted": [verdict.accepted],
            "share set aside": [verdict.bad / rows],
            "share of unknown items or users": [verdict.unknown / rows],
            "rows unaccounted for": [balance],
            "newest second": [newest or 0.0],
            **{f"different values of {column}": [count] for column, count in values.items()},
        }
    )


def whole_suite(table: Table, before: dict[str, Any] | None) -> list[Any]:
    """What a table must be as a whole; volume and freshness only when there is a run to compare with."""
    from great_expectations import expectations as gxe

    least = 0 if table.may_be_empty else 1
    suite = [
        gxe.ExpectColumnValuesToBeBetween(column="rows accepted", min_value=least),
        gxe.ExpectColumnValuesToBeBetween(column="share set aside", max_value=MOST_BAD),
        gxe.ExpectColumnValuesToBeBetween(column="rows unaccounted for", min_value=0, max_value=0),
    ]
    if table.name == EVENTS.name:
        suite.append(gxe.ExpectColumnValuesToBeBetween(column="share of unknown items or users", max_value=MOST_UNKNOWN))
    suite += [
        gxe.ExpectColumnValuesToBeBetween(column=f"different values of {column.name}", max_value=column.most_values)
        for column in table.columns
        if column.most_values is not None
    ]
    if before and before["accepted"]:
        volume = {"min_value": before["accepted"] * LEAST_VOLUME, "max_value": before["accepted"] * MOST_VOLUME}
        suite.append(gxe.ExpectColumnValuesToBeBetween(column="rows accepted", **volume))
        if before["newest_second"] is not None and table.name == "events":
            suite.append(gxe.ExpectColumnValuesToBeBetween(column="newest second", min_value=before["newest_second"]))
    return suite


def checked(expectations: list[Any], frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Each expectation's outcome. An expectation that could not be evaluated has failed."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}  # type: ignore[assignment]
    definition = context.data_sources.add_pandas("memory").add_dataframe_asset("table").add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name="suite", expectations=expectations)
    result = definition.get_batch(batch_parameters={"dataframe": frame}).validate(suite, result_format="SUMMARY")
    if result.statistics["evaluated_expectations"] != len(expectations):
        raise BadTable(
            f"{result.statistics['evaluated_expectations']} of {len(expectations)} expectations were evaluated: report this with the data"
        )
    return [_plain(entry) for entry in result.to_json_dict()["results"]]


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """One expectation's outcome without the run's ids and times, so that equal data leave equal bytes."""
    config = entry["expectation_config"]
    kwargs = {name: value for name, value in config["kwargs"].items() if name != "batch_id"}
    kept = ("element_count", "unexpected_count", "observed_value", "partial_unexpected_list")
    return {
        "expectation": config["type"],
        "kwargs": kwargs,
        "success": bool(entry["success"]),
        "result": {name: entry["result"][name] for name in kept if name in entry["result"]},
    }
