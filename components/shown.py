"""What a person sees of a step on the pipelines' page: numbers as metrics, a report as a page.

Made from what the step wrote, never instead of it.
"""

import json
import shutil
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any


def show_numbers(numbers: Mapping[str, Any], metrics: Any) -> None:
    """Log what is a number to a `kfp.dsl.Metrics`; its file, which the page does not read, holds the same as JSON."""
    told = {name: float(value) for name, value in numbers.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    for name, value in told.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


def judged_numbers(metrics: Path | str) -> dict[str, float]:
    """From `metrics.json` of an evaluation: every recommender's metrics on all households, as `candidate ndcg@10`."""
    told = json.loads((Path(metrics) / "metrics.json").read_text())
    recommenders = told.get("protocols", {}).get("all", {}).get("recommenders", {})
    return {
        f"{name} {metric}": found["value"]
        for name, metrics_of in recommenders.items()
        for metric, found in metrics_of.items()
        if isinstance(found, Mapping) and isinstance(found.get("value"), int | float)
    }


def show_page(file: Path | str, page: Any) -> None:
    """A report that the step wrote, as the page's HTML artifact."""
    shutil.copyfile(file, page.path)


def show_verdict(gate: Path | str, page: Any) -> None:
    """`gate.json` as a page: the sentence that decides, and every check with its own."""
    told = json.loads((Path(gate) / "gate.json").read_text())
    rows = "".join(
        f"<tr><td>{'passed' if check['passed'] else 'failed'}</td><td>{escape(check['name'])}</td><td>{escape(check['sentence'])}</td></tr>"
        for check in told["checks"]
    )
    Path(page.path).write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Gate</title></head><body>'
        f"<h1>{'Passed' if told['passed'] else 'Refused'}</h1><p>{escape(told['sentence'])}</p><table>{rows}</table></body></html>\n"
    )
