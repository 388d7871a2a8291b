"""The rankers' forms as a run shows them: numbers by name, a table, the frontier, a plot in a page that needs no network."""

import json
from pathlib import Path

from components.release.figures import figures
from components.release.forms import front, rows, speedup
from components.release.making import Making
from components.release.page import report
from tests.components.release.made import TINY, looks_like


def quality(lost: float) -> dict[str, float]:
    return {"lost": lost, "lost_error": 0.001, "grown": 0.01, "graph_bytes": 1000, "halves_bytes": 24}


def made(folder: Path) -> Making:
    """A heavy ranker of two forms: the student takes 40 us of 200 where the network as drawn takes 2,000."""
    folder.joinpath("export").mkdir(parents=True)
    parts = {
        "parity.json": {"heavy": {
            "served": "student", "why": "the fastest of 1", "refused": {}, "forms": {"fp32": quality(0.0), "student": quality(0.004)}}},
        "timing.json": {"heavy": {
            "drawn": {"200": [2000.0, 20.0], "1000": [9000.0, 90.0]}, "fp32": {"200": [400.0, 4.0], "1000": [1900.0, 20.0]},
            "student": {"200": [40.0, 1.0], "1000": [180.0, 2.0]}}},
    }  # fmt: skip
    for name, content in parts.items():
        (folder / "export" / name).write_text(json.dumps(content))
    made = looks_like(folder / "made", "aaa", 0.2)
    return Making.of(made.bundle, made.metrics, made.gate, export=folder / "export")


def test_numbers_are_of_every_form_and_say_how_much_faster_than_drawn(tmp_path: Path) -> None:
    making = made(tmp_path)
    assert speedup(making, "heavy", "student", "200") == 50
    found = figures(making)
    assert found["forms/heavy student: us of 200"] == 40
    assert found["forms/heavy student: us of 200 error"] == 1
    assert found["forms/heavy student: NDCG lost"] == 0.004
    assert found["forms/heavy student: bytes"] == 1024
    assert found["forms/heavy served: times as fast as drawn_ 200"] == 50  # MLflow takes no comma


def test_the_table_says_what_is_served_and_why(tmp_path: Path) -> None:
    found = {(row[0], row[1]): row[2:] for row in rows(made(tmp_path))}
    assert len(found) == 6
    assert found["heavy student (served)", "200"] == ("40 ± 1", "50.0", "+0.40% ± 0.10%", "+1.00%", "1,024", "the fastest of 1")
    assert found["heavy drawn", "1000"] == ("9,000 ± 90", "1.0", "", "", "", "")


def test_the_front_leaves_out_what_another_beats_in_both() -> None:
    assert front({"fp32": (400, 0.0), "slow and worse": (500, 0.2), "student": (40, 0.4), "worse": (50, 0.9)}) == ["student", "fp32"]


def test_the_page_holds_table_and_plot_and_none_where_nothing_was_exported(tmp_path: Path) -> None:
    page = report(TINY, made(tmp_path), "r1")
    assert "heavy student (served)" in page
    assert "data:image/png;base64," in page
    other = looks_like(tmp_path / "other", "bbb", 0.2)
    assert "Forms of the rankers" not in report(TINY, Making.of(other.bundle, other.metrics, other.gate), "r2")
