"""Whether any event lies ahead of now: only then does the moment of a run decide what is accepted, and belongs in a step's key."""

from datetime import UTC, datetime
from pathlib import Path


def now_if_ahead(tables: str | Path) -> str:
    """This moment (UTC, ISO) when the folder's events reach beyond it, else the empty text."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = Path(tables) / "events.parquet"
    if not path.is_file():
        return ""  # the step says what is missing
    last = pc.max(pq.read_table(path, columns=["timestamp"])["timestamp"]).as_py()
    now = datetime.now(UTC)
    return now.isoformat() if last is not None and last > now else ""
