"""Drift on very many served rows: seconds and memory of two windows drawn and judged; and how often it is right.

python -m tests.bench.drift [ROWS]         one large window
python -m tests.bench.drift --power [N]    N windows with each planted shift, and twice as many quiet ones
"""

import resource
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import duckdb

from components.monitoring.sample import draw
from components.monitoring.verdict import ALPHA, NONE, judge
from tests.components.monitoring.windows import PLANTED, window, written

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


def power(repetitions: int) -> None:
    """How many of so many first windows of 3,000 users show each planted shift, and how many quiet ones cry wolf; with bounds of 95 %."""
    from scipy.stats import beta

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "window.parquet"
        for name, (column, plant) in PLANTED.items():
            reference = draw(written(window(0), table))
            causes = (judge(reference, draw(written(plant(window(seed)), table)))["causes"] for seed in range(1, repetitions + 1))
            found = sum(any(cause["column"] == column for cause in one) for one in causes)
            least = beta.ppf(0.05, found, repetitions - found + 1) if found else 0.0
            print(f"{name}: found in {found} of {repetitions} first windows, power at least {least:.3f}", flush=True)
        quiet, alarms = 2 * repetitions, 0
        for seed in range(quiet):  # references differ, too
            then, now = (draw(written(window(100_000 * side + seed), table)) for side in (1, 2))
            alarms += judge(then, now)["verdict"] != NONE
        most = beta.ppf(0.95, alarms + 1, quiet - alarms)
        print(f"quiet: {alarms} of {quiet} windows called drift, rate at most {most:.3f}; stated {ALPHA:g}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--power"]:
        power(int(sys.argv[2]) if len(sys.argv) > 2 else 60)
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
