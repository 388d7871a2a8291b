"""The rankers as drawn and every smaller form of them, learnt in the small video world: CPU a call, bytes, NDCG, watch-time error.

python -m tests.bench.forms --home DIR      # a training of the full networks where DIR has none: half an hour of two cores

The rankers are those of the newest run under DIR. Times are CPU of sessions of one thread, calls of all forms in turn. `NDCG lost` is the
export's, on requests before the cut, by which a form is served or not; `days after` are judged after the cut, which nothing learnt from.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from components.cut import cut_folders
from components.data.video_world import SMALL, write
from components.export.export import ask, asked_of, chosen, shortened
from components.export.forms import DRAWN, Quality, made, qualities
from components.export.parity import ParityCase
from components.ranking.examples import chosen_users
from components.ranking.fitted import item_codes, load_cut
from components.ranking.model import Ranker, load
from pipelines.runner import Run
from serving.bundle.catalogue import Catalogue
from serving.system import System, load_system

SYSTEM = "video"
AFTER = 1000  # users of the days after the cut
HEAD = ("form", "µs, 200", "µs, 1000", "drawn ÷ this, 200", "bytes", "NDCG lost", "days after", "lost there", "watch error", "why")
Timed = Mapping[str, Mapping[str, tuple[float, float]]]  # form, candidates: µs and its error


def trained(home: Path) -> Run:
    """The newest training under `home` whose rankers are as the system draws them; made where there is none."""
    widths = load_system(SYSTEM).learning.heavy.hidden
    for again in (False, True):
        for folder in sorted((home / "runs").glob("*-shortlist-training"), reverse=True):
            file = folder / "ranking" / "out" / "heavy.pt"
            if file.is_file() and load(file).sizes.hidden == widths:
                return Run(folder, ())
        if not again:
            write(home / "video_tables", SMALL, 0)
            command = [sys.executable, "-m", "pipelines", "train", SYSTEM, "--data", str(home / "video_tables"), "--home", str(home)]
            subprocess.run(command, check=False)  # a refusal by the gate is no matter here
    raise SystemExit(f"no run under {home} has rankers of {widths}: see its log")


def after(system: System, features: Path, retrieval: Path, most: int) -> list[ParityCase]:
    """What users of the days after the cut are asked: only what is new to them."""
    cut = load_cut(system, features, retrieval, cut_folders(features)[-1].name)
    codes = item_codes(cut.catalogue, cut.catalogue)
    asked = [one for user in chosen_users(cut, most, seed=0) for one in ask(system, cut, codes, user)]
    return [one for one in asked if not one.seen.any() and one.label.any()]


def measure(run: Run) -> dict[str, tuple[dict[str, Any], Timed, dict[str, Quality]]]:
    """Each ranker's record and times as the export makes them, and its forms' quality on the days after."""
    system = load_system(SYSTEM)
    features, retrieval, ranking = (run.output(step) for step in ("features", "retrieval", "ranking"))
    catalogue, bounds = Catalogue.load(cut_folders(features)[-1] / "item_table"), system.learning.compression
    groups = [*asked_of(system, features, retrieval, catalogue, bounds), after(system, features, retrieval, AFTER)]
    networks = {"light": (system.learning.light, system.light_size, system.pool_size)}
    networks["heavy"] = (system.learning.heavy, system.answer_size, system.light_size)
    found: dict[str, tuple[dict[str, Any], Timed, dict[str, Quality]]] = {}
    for name, (network, kept, count) in networks.items():
        lessons, requests, later = groups
        forms = made(load(ranking / f"{name}.pt"), network, bounds, lessons)
        served, dtype, record, timing = chosen(forms, requests, kept, count, len(catalogue), system, bounds)
        found[name] = record, timing, qualities(forms, later, kept, system.objectives, dtype)
        groups = _shortened(served.model, groups, system)
    return found


def _shortened(light: Ranker, groups: list[list[ParityCase]], system: System) -> list[list[ParityCase]]:
    return [shortened(light, group, system) for group in groups]


def table(name: str, record: Mapping[str, Any], timing: Timed, later: Mapping[str, Quality]) -> Table:
    """A line a form: what it costs and loses, and why it is served or not."""
    made = Table(title=f"{name}: NDCG@{record['kept']}", title_justify="left", header_style="bold")
    for head in (
        "form",
        "µs, 200",
        "µs, 1000",
        "drawn ÷ this, 200",
        "bytes",
        "NDCG lost",
        "days after",
        "lost there",
        "watch error",
        "why",
    ):
        made.add_column(head, justify="left" if head in ("form", "why") else "right")
    for form, timed in timing.items():
        us, error = timed["200"]
        cells = [form, *(f"{timed[count][0]:,.0f} ± {timed[count][1]:,.0f}" for count in ("200", "1000"))]
        drawn, apart = timing[DRAWN]["200"]
        cells.append(f"{drawn / us:.1f} ± {drawn / us * np.hypot(error / us, apart / drawn):.1f}")
        if (one := record["forms"].get(form)) is not None:
            there = later[form]
            cells += [f"{one['graph_bytes'] + one['halves_bytes']:,}", f"{one['lost']:+.2%} ± {one['lost_error']:.2%}", f"{there.ndcg:.4f}"]
            cells += [f"{there.lost:+.2%} ± {there.lost_error:.2%}", f"{there.error:.3f} ({there.grown:+.1%})"]
            cells.append(f"served: {record['why']}" if form == record["served"] else record["refused"].get(form, ""))
        made.add_row(*cells)
    return made


def share(found: Mapping[str, tuple[dict[str, Any], Timed, dict[str, Quality]]]) -> float:
    """CPU of light over 1000 and heavy over 200 as served, as a share of both as drawn."""
    sums = {DRAWN: 0.0, "served": 0.0}
    for name, count in (("light", "1000"), ("heavy", "200")):
        record, timing, _ = found[name]
        sums[DRAWN] += timing[DRAWN][count][0]
        sums["served"] += timing[record["served"]][count][0]
    return sums["served"] / sums[DRAWN]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path(".shortlist"))
    found = measure(trained(parser.parse_args().home))
    console = Console(width=220)
    for name, (record, timing, later) in found.items():
        console.print(table(name, record, timing, later))
    record, timing, _ = found["heavy"]
    console.print(f"heavy, 200: as drawn ÷ served {timing[DRAWN]['200'][0] / timing[record['served']]['200'][0]:.1f} ({record['served']})")
    console.print(f"light 1000 and heavy 200: served as a share of drawn {share(found):.1%}")


if __name__ == "__main__":
    main()
