"""What is left of a verdict: JSON for programs, Evidently's page for people, a text file for Prometheus."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from components.monitoring.sample import TIME, UNIT
from components.monitoring.verdict import ALPHA, EXIT_CODES, Verdict

if TYPE_CHECKING:
    import pandas as pd

PAGE_ROWS = 5_000  # of each sample that Evidently draws


def write(verdict: Verdict, system: str, reference: "pd.DataFrame", current: "pd.DataFrame", out: Path) -> None:
    """`out/verdict.json`, `drift.prom` and, where both samples hold rows, `drift.html`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "verdict.json").write_text(json.dumps(verdict, indent=1, sort_keys=True, default=float) + "\n")
    (out / "drift.prom").write_text(prometheus(verdict, system))
    if verdict["tests"]:
        page(reference, current, out / "drift.html")


def prometheus(verdict: Verdict, system: str) -> str:
    """The verdict in Prometheus' text format, for node_exporter's textfile collector."""
    lines = [
        "# HELP shortlist_drift_verdict 0 none, 2 drift, 3 cannot judge",
        "# TYPE shortlist_drift_verdict gauge",
        f'shortlist_drift_verdict{{system="{system}"}} {EXIT_CODES[verdict["verdict"]]}',
        "# HELP shortlist_drift_p chance of the column's shift in a quiet window, after Holm",
        "# TYPE shortlist_drift_p gauge",
        *(f"shortlist_drift_p{{{_labels(system, test)}}} {test['adjusted']:.6g}" for test in verdict["tests"]),
        "# HELP shortlist_drift_effect how far the column moved, in its test's own measure",
        "# TYPE shortlist_drift_effect gauge",
        *(f"shortlist_drift_effect{{{_labels(system, test)}}} {test['effect']:.6g}" for test in verdict["tests"]),
        "# HELP shortlist_drift_rows rows of the current window",
        "# TYPE shortlist_drift_rows gauge",
        f'shortlist_drift_rows{{system="{system}"}} {verdict["current"]["rows"]}',
    ]
    for bundle, found in sorted(verdict.get("ctr", {}).items()):
        lines.append(f'shortlist_drift_ctr{{system="{system}",bundle="{bundle}"}} {found["ctr"]:.6g}')
    for column, share in sorted(verdict.get("skew", {}).get("columns", {}).items()):
        lines.append(f'shortlist_drift_skew{{system="{system}",column="{column}"}} {share:.6g}')
    return "\n".join(lines) + "\n"


def _labels(system: str, test: dict[str, object]) -> str:
    return f'system="{system}",column="{test["column"]}",kind="{test["kind"]}"'


def page(reference: "pd.DataFrame", current: "pd.DataFrame", path: Path) -> dict[str, float]:
    """Evidently's drift page of the plain columns, by the tests of `components/monitoring/shifts.py`; each column's p by Evidently."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently on newer numpy and pandas
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        plain = [name for name in reference.columns if name in current.columns and name not in (UNIT, TIME) and _is_plain(reference, name)]
        numbers = [name for name in plain if reference[name].dtype.kind in "fiu" and current[name].dtype.kind in "fiu"]
        texts = [name for name in plain if name not in numbers]
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
        frames = [_shown(frame, plain, texts) for frame in (current, reference)]
        now, then = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
        metrics = [ValueDrift(column=name, method="ks" if name in numbers else "chisquare", threshold=ALPHA / len(plain)) for name in plain]
        run = Report(metrics, include_tests=True).run(now, then)
        run.save_html(str(path))
        said = json.loads(run.json())["metrics"]
    return {name: float(one["value"]) for name, one in zip(plain, said, strict=True)}


def _is_plain(frame: "pd.DataFrame", name: str) -> bool:
    filled = frame[name].dropna()
    return len(filled) > 1 and (isinstance(filled.iloc[0], str) or not hasattr(filled.iloc[0], "__len__"))


def _shown(frame: "pd.DataFrame", plain: list[str], texts: list[str]) -> "pd.DataFrame":
    few = frame[plain].iloc[:PAGE_ROWS].reset_index(drop=True)
    return few.astype(dict.fromkeys(texts, str))
