"""A measured record as tables and as a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.bench.measure import FUSED, NAIVE, PURE, SPLIT

SUBJECTS = (FUSED, PURE, SPLIT, NAIVE)


def show(record: Mapping[str, Any], console: Console) -> None:
    """The record as tables."""
    console.print(f"{record['machine']['cores']} cores, {record['machine']['cpu']}")
    for name, found in record["catalogues"].items():
        heads = ("", "rate", "CPU ms", "range", "full rung", "idle ms", "p50 ms", "p99 ms", "RSS MB", "ready s")
        table = Table(*heads, title=name, title_justify="left")
        for subject in SUBJECTS:
            if subject in found:
                one = found[subject]
                low, high = one["cpu_ms_range"]
                figures = (one[key] for key in ("from_full_rung", "idle_ms", "p50_ms", "p99_ms", "rss_mb", "ready_s"))
                table.add_row(subject, str(one["rate"]), str(one["cpu_ms"]), f"{low} - {high}", *map(str, figures))
        console.print(table)
        for key, value in found.items():
            if "median" in value:
                console.print(f"  {key.replace('_', ' ')}: {value['median']} ({value['least']} - {value['most']})")
        for key, value in found["without_pauses"].items():
            console.print(f"  without pauses, {key.replace('_', ' ')}: {value['median']} ({value['least']} - {value['most']})")
        for key, value in found["engine"].items():
            stages = ", ".join(f"{stage} {ms}" for stage, ms in value["stage_ms"].items())
            console.print(f"  engine of {key}: {value['median']} ({value['least']} - {value['most']}) CPU ms; wall ms {stages}")
        for key in ("open_loop", "open_loop_split"):
            if key in found:
                _open_loop(key, found[key], console)
        console.print(f"  capacity of one core: {found['capacity']}")


def _open_loop(key: str, found: Mapping[str, Any], console: Console) -> None:
    names = list(found["runs"][0])
    title = f"{key.replace('_', ' ')}, {found['rate']:.0f} requests/s, ms"
    table = Table("run", *(name.removesuffix("_ms") for name in names), title=title, title_justify="left")
    for at, run in enumerate(found["runs"]):
        table.add_row(str(at + 1), *(str(run[name]) for name in names))
    console.print(table)
    console.print(
        f"  {100 * found['from_full_rung']:.2f} % from the full rung; the client itself: late by {found['client_late_p99_ms']} ms (p99), "
        f"{found['client_cpu_ms']} ms CPU a request"
    )


def plot(record: Mapping[str, Any], file: Path) -> None:
    """CPU a request, a bar each, as SVG with fixed ids (the same record gives the same bytes)."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "shortlist"
    from matplotlib import pyplot

    bars = [
        (f"{subject}\n{name}", found[subject]["cpu_ms"], found[subject]["cpu_ms_range"])
        for name, found in record["catalogues"].items()
        for subject in SUBJECTS
        if subject in found
    ]
    figure, axes = pyplot.subplots(figsize=(7, 0.6 * len(bars) + 1.2))
    values = np.array([value for _, value, _ in bars])
    around = np.array([[value - low, high - value] for _, value, (low, high) in bars]).T
    colours = ["#b0b0b0" if label.startswith(NAIVE) else "#2a6f97" for label, _, _ in bars]
    axes.barh([label for label, _, _ in bars], values, xerr=around, color=colours, height=0.6)
    for at, value in enumerate(values):
        axes.text(value, at - 0.38, f" {value:.2f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("CPU milliseconds a request (median of rounds, range)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
