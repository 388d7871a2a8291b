"""The page beside a validation run: self-contained, so that it opens on a machine without a network."""

from html import escape
from pathlib import Path
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1c2330; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #d9dee7; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.passed { color: #17703b; } .failed { color: #b3261e; font-weight: 600; }
@media (prefers-color-scheme: dark) { body { background: #14171d; color: #e6e9ef; } th, td { border-color: #333a46; }
.passed { color: #6fd197; } .failed { color: #ff8a80; } }
"""


def write_page(report: dict[str, Any], path: Path) -> None:
    """Write the report of `validate` as one HTML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [_row_counts(report["tables"])]
    parts += [_table(name, table) for name, table in report["tables"].items()]
    title = f"Data of {escape(report['system'])}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{_STYLE}</style>'
    body = f"<h1>{title}: {_outcome(report['passed'])}</h1>{''.join(parts)}"
    path.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n')


def _row_counts(tables: dict[str, Any]) -> str:
    rows = [
        [escape(name), f"{table['rows_in']:,}", f"{table['accepted']:,}", f"{table['set_aside']:,}", _outcome(table["passed"])]
        for name, table in tables.items()
    ]
    return _grid(["table", "rows in", "accepted", "set aside", ""], rows, numbers=(1, 2, 3))


def _table(name: str, table: dict[str, Any]) -> str:
    reasons = [[escape(reason), f"{count:,}", escape(str(table["examples"].get(reason, "")))] for reason, count in table["reasons"].items()]
    checks = [
        [escape(check["expectation"]), escape(_settings(check["kwargs"])), escape(_settings(check["result"])), _outcome(check["success"])]
        for check in table["expectations"]
    ]
    aside = _grid(["set aside because", "rows", "an example"], reasons, numbers=(1,)) if reasons else "<p>No row was set aside.</p>"
    return f"<h2>{escape(name)}</h2>{aside}{_grid(['expectation', 'of', 'seen', ''], checks)}"


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, [], ""))


def _outcome(passed: bool) -> str:
    return '<span class="passed">passed</span>' if passed else '<span class="failed">failed</span>'


def _grid(head: list[str], rows: list[list[str]], numbers: tuple[int, ...] = ()) -> str:
    def cells(tag: str, values: list[str]) -> str:
        kinds = (' class="number"' if index in numbers else "" for index in range(len(values)))
        return "<tr>" + "".join(f"<{tag}{kind}>{value}</{tag}>" for kind, value in zip(kinds, values, strict=True)) + "</tr>"

    return f"<table><thead>{cells('th', head)}</thead><tbody>{''.join(cells('td', row) for row in rows)}</tbody></table>"
