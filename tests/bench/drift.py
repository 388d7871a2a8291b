"""Drift on very many served rows: seconds and memory of two windows drawn and judged. `python -m tests.bench.drift [ROWS]`."""

import resource
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import duckdb

from components.monitoring.sample import draw
from components.monitoring.verdict import judge

NUMBERS, WIDTH = 24, 16


def write(path: Path, rows: int, users: int, seed: int, shift: float) -> None:
    """A window of that many rows of so many users; `shift`: of the mean of n3, in standard deviations."""
    numbers = ", ".join(f"(random() + random() + random() - 1.5) * 2 + {shift if at == 3 else 0} AS n{at}" for at in range(NUMBERS))
    vector = ", ".join("random()::FLOAT" for _ in range(WIDTH))
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '2GB'; SELECT setseed({seed / 100})").fetchall()
        connection.execute(
            f"""COPY (SELECT 'u' || (random() * {users})::BIGINT AS user_id,
            TIMESTAMPTZ '2024-03-18 00:00:00+00' + to_seconds(random() * 604800) AS timestamp, {numbers},
            0.3 + random() * 0.4 AS prediction, 'kind ' || (random() * random() * 8)::INT AS c0, [{vector}] AS vector FROM range({rows}))
            TO '{path}' (FORMAT parquet)"""
        )


def main(rows: int) -> None:
    """Write both windows, judge them in this process, print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        then, now = (Path(folder) / f"{name}.parquet" for name in ("then", "now"))
        with get_context("spawn").Pool(1) as elsewhere:  # so that the peak is the judging's own
            elsewhere.starmap(write, [(then, rows // 10, 100_000, 1, 0.0), (now, rows, 1_000_000, 2, 0.3)])
        began, cpu = time.perf_counter(), time.process_time()
        verdict = judge(draw(then), draw(now))
        took, worked = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        size = now.stat().st_size / 2**30
    causes = ", ".join(cause["column"] for cause in verdict["causes"])
    print(
        f"rows={verdict['current']['rows']} gib={size:.2f} seconds={took:.1f} cpu_seconds={worked:.1f} peak_gib={peak:.2f} causes={causes}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
