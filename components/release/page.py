"""What a person reads of a run: the version's description in the registry's page, and one HTML file that needs no network."""

import io
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import Any

from components.release import forms
from components.release.figures import READ, figures, sources
from components.release.making import Making
from serving.system import System

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2330; background: #fff; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #d9dee7; vertical-align: top; }
td { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.passed { color: #17703b; } .failed { color: #b3261e; font-weight: 600; }
"""


def description(system: System, making: Making, judged: str = "") -> str:
    """Markdown for the version: what it is, how it was judged and against what, and what to do with it."""
    settings, span = making.settings(), making.manifest.get("span") or {}
    lines = [f"**{making.verdict.get('sentence', '')}**", ""]
    if judged:
        lines += [f"Learnt again from all rows with the settings of bundle `{judged[:12]}`, whose judgement this is.", ""]
    of = f"{_count(span, 'items')} items for {_count(span, 'users')} users, known up to {_cut(making)}"
    what = f"{system.answer_size} {system.noun}s of {of}"
    lines += [f"{what}. Bundle `{making.digest or making.manifest.get('digest', '')}`.", ""]
    if making.metrics:
        days = making.metrics["judged_days"]
        lines += [
            f"Judged on the {days} day{'s' * (days != 1)} after the cut, against {making.against}.",
            "",
            *_markdown(making),
            "",
        ]
        failed = sum(not check["passed"] for check in making.verdict.get("checks", []))
        lines += [f"{len(making.verdict.get('checks', []))} checks, {failed} failed: see `report.html` in the run. {_cost(making)}", ""]
    made = ", ".join(f"{name} {settings[name][:40]}" for name in ("seed", "fast", "until", "commit", "data") if name in settings)
    lines += [f"Made with {made}." if made else "", ""]
    undo = f"`shortlist rollback {system.name}` undoes it"
    here = "give it the alias `champion` here (the pencil beside Aliases; the button Promote only copies it to another model)"
    lines += [f"To answer from it, {here}, or run `shortlist promote {system.name}`; {undo}."]
    return "\n".join(lines)


def report(system: System, making: Making, run: str) -> str:
    """The run as one HTML page."""
    title = f"{system.name}: bundle {making.digest[:12]}"
    parts = [
        f'<p class="{"passed" if making.passed else "failed"}">{escape(str(making.verdict.get("sentence", "")))}</p>',
        f"<p>Run {escape(run)}. Compared with {escape(making.against)}.</p>",
        "<h2>Judged</h2>", _grid(("", "ours", *_rivals(making)), _judged_rows(making), numbers=True),
        "<h2>Checks of the gate</h2>", _grid(("check", "", "what was seen"), _check_rows(making)),
        "<h2>Candidate sources</h2>", _grid(("recall@1000", "alone", "the pool loses without it"), _source_rows(making), numbers=True),
        *_forms(making),
        "<h2>What made it</h2>", _grid(("setting", "value"), [(name, value) for name, value in making.settings().items()]),
        "<h2>Data</h2>", _grid(("table", "rows in", "accepted", "set aside"), _data_rows(making), numbers=True),
        "<h2>Numbers</h2>", _grid(("", "value"), [(name, f"{value:.6g}") for name, value in sorted(figures(making).items())], numbers=True),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{"".join(parts)}</body></html>\n'


def _source_rows(making: Making) -> list[tuple[str, ...]]:
    return [(f"{kind}{asked}", _short(own), _short(marginal, "+")) for kind, own, marginal, asked in sources(making)]


def _forms(making: Making) -> list[str]:
    """The forms of the rankers, the plot in the page itself; nothing where the export was not given."""
    if not making.timing:
        return []
    image = io.BytesIO()
    forms.figure(making).savefig(image, format="png", dpi=90)
    plot = f'<img alt="loss against time" src="data:image/png;base64,{b64encode(image.getvalue()).decode()}">'
    return ["<h2>Forms of the rankers</h2>", _grid(forms.HEAD, forms.rows(making), numbers=True), plot]


def _rivals(making: Making) -> list[str]:
    named = {rival for judged in making.metrics.get("protocols", {}).values() for rival in judged.get("against", {})}
    return [f"ahead of {rival}" for rival in sorted(named)]


def _judged_rows(making: Making) -> list[tuple[str, ...]]:
    rows = []
    for protocol, judged in making.metrics.get("protocols", {}).items():
        for metric in READ:
            ours = judged.get("recommenders", {}).get("candidate", {}).get(metric)
            if isinstance(ours, Mapping):
                leads = [judged.get("against", {}).get(rival.removeprefix("ahead of "), {}).get(metric) for rival in _rivals(making)]
                rows.append((f"{metric}, {protocol}", _lead(ours, sign=""), *map(_lead, leads)))
    return rows


def _markdown(making: Making) -> list[str]:
    """A table whose cells MLflow's page sets without a gap: a number and its error stand in one."""
    head = ("", "ours", *_rivals(making))
    rows = [head, tuple("---" for _ in head), *_judged_rows(making)]
    return [f"| {' | '.join(row)} |" for row in rows]


def _check_rows(making: Making) -> list[tuple[str, ...]]:
    return [
        (str(check["name"]), "passed" if check["passed"] else "FAILED", str(check["sentence"]))
        for check in making.verdict.get("checks", [])
    ]


def _data_rows(making: Making) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{table.get(column, 0):,}" for column in ("rows_in", "accepted", "set_aside")))
        for name, table in making.data.get("tables", {}).items()
    ]


def _lead(found: Any, sign: str = "+") -> str:
    return f"{_short(found.get('value'), sign)} ± {_short(found.get('error'))}" if isinstance(found, Mapping) else ""


def _cost(making: Making) -> str:
    """What an answer takes, where it was measured."""
    cpu, size = making.latency.get("cpu_ms_p50"), making.metrics.get("bundle_bytes")
    return f"An answer takes {cpu:.1f} ms of CPU, the bundle {size / 1e6:.1f} MB." if cpu and size else ""


def _short(value: Any, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if isinstance(value, int | float) else ""


def _count(span: Mapping[str, Any], name: str) -> str:
    return f"{span[name]:,}" if isinstance(span.get(name), int) else "?"


def _cut(making: Making) -> str:
    span = making.manifest.get("span")
    return str(span.get("cut", "?")) if isinstance(span, Mapping) else "?"


def _grid(head: tuple[str, ...], rows: list[tuple[str, ...]], numbers: bool = False) -> str:
    """A table; with `numbers` every column but the first is aligned right."""

    def cells(tag: str, values: tuple[str, ...]) -> str:
        kind = ' class="number"' if numbers else ""
        return "<tr>" + "".join(f"<{tag}{kind if at else ''}>{escape(value)}</{tag}>" for at, value in enumerate(values)) + "</tr>"

    return f"<table><thead>{cells('th', head)}</thead><tbody>{''.join(cells('td', row) for row in rows)}</tbody></table>"
