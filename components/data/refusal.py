"""The paragraph that refuses a table: what failed, on how many rows, with an example, and the next step."""

from datetime import UTC, datetime
from typing import Any


def refusal(name: str, table: dict[str, Any], compared_with: str) -> str:
    """One table's paragraph: what failed, how many rows, an example, the next step."""
    failed = [check for check in table["expectations"] if not check["success"]]
    said = [f"{check['kwargs']['column']} {_limits(check)}" for check in failed]
    reasons = [f"{count} with {reason}{_example(table, reason)}" for reason, count in table["reasons"].items()]
    rows = f"{table['set_aside']} of {table['rows_in']} rows were set aside" + (f": {'; '.join(reasons)}" if reasons else "")
    columns = {check["kwargs"]["column"] for check in failed}
    advice = ["Correct the data and start again."]
    if "share of unknown items or users" in columns:
        advice = ["Are ids written alike in both tables? What was withdrawn may stay in items with policy_flags 'blocked'."]
    if columns & {"newest second", "rows accepted"} and table["accepted"] and not columns & {"share set aside"}:
        advice = [f"They were compared with {compared_with}. If they are meant to be so, start again with --accept."]
    return f"The table {name} is refused: {'; '.join(said)}. {rows}. {' '.join(advice)}"


def _example(table: dict[str, Any], reason: str) -> str:
    return f" (for example {table['examples'][reason]})" if table["examples"].get(reason) else ""


def _limits(check: dict[str, Any]) -> str:
    kwargs, result = check["kwargs"], check["result"]
    seen = result.get("partial_unexpected_list") or [result.get("observed_value", "nothing")]
    told = _moment if kwargs["column"] == "newest second" else "{:g}".format
    wanted = [f"at least {told(kwargs['min_value'])}" if kwargs.get("min_value") is not None else ""]
    wanted.append(f"at most {told(kwargs['max_value'])}" if kwargs.get("max_value") is not None else "")
    value = _moment(seen[0]) if kwargs["column"] == "newest second" else seen[0]
    return f"is {value}, expected {' and '.join(filter(None, wanted)) or check['expectation']}"


def _moment(second: float) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M} UTC"
