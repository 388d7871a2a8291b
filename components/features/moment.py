"""At which moment the known ends: the cut everything is learnt before and judged after."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.features.cuts import parse_moment
from serving.system import load_system

FAST_CUTS = 2  # weekly cuts a `--fast` run learns its rankers from


class BadMoment(ValueError):
    """The given cut is no moment, or lies outside the data."""


def moment(system: str, tables: Path | str, until: str) -> str:
    """The cut as an ISO timestamp in UTC: `until`; "end": the midnight after the last row; empty: a target's length before that.

    Raises `BadMoment` when `until` is not a timestamp, or no event lies before it.
    """
    first, last = span(Path(tables))
    midnight = last.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if until == "end":
        return midnight.isoformat()
    if not until:
        return (midnight - timedelta(days=load_system(system).learning.horizon_days)).isoformat()
    try:
        cut = parse_moment(until)
    except ValueError as problem:
        raise BadMoment(f"--until {until!r} is no moment: write it like 2017-11-27 or 2017-11-27T06:00:00+00:00") from problem
    if cut <= first:
        raise BadMoment(f"--until {until} leaves nothing to learn from: the first event is at {first.isoformat()}; choose a later moment")
    return cut.isoformat()


def span(tables: Path) -> tuple[datetime, datetime]:
    """Time of the first and of the last event."""
    import pyarrow.compute
    import pyarrow.parquet

    column = pyarrow.parquet.read_table(tables / "events.parquet", columns=["timestamp"]).column("timestamp")
    found = pyarrow.compute.min_max(column).as_py()
    if found["min"] is None:
        raise BadMoment(f"{tables} holds no events: give a folder whose events.parquet has rows")
    return found["min"].astimezone(UTC), found["max"].astimezone(UTC)


def cuts_of(system: str, fast: bool) -> int:
    """How many weekly cuts the rankers learn from."""
    cuts = load_system(system).learning.cuts
    return min(cuts, FAST_CUTS) if fast else cuts
