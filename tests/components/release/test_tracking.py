"""A run holds what made the model, in groups a person reads; the version's page is enough to decide on."""

from pathlib import Path

import pytest

from components.release.cause import note_cause
from components.release.figures import curves, figures
from components.release.making import Making
from components.release.page import description, report
from components.release.registry import open_registry
from tests.components.release.made import TINY, Made, looks_like


@pytest.fixture(scope="module")
def many() -> Making:
    """A judgement as wide as the real one: two rivals, two protocols, a dozen slices, eight metrics."""
    metrics = ("ndcg@10", "ndcg@100", "ndcg@1000", "recall@10", "recall@100", "recall@1000", "mrr", "hit_rate@10")
    number = {"value": 0.25, "error": 0.01}
    judged = {
        "users": 100,
        "recommenders": {who: dict.fromkeys(metrics, number) for who in ("candidate", "popularity", "champion")},
        "against": {rival: dict.fromkeys(metrics, number) for rival in ("popularity", "champion")},
    }
    protocols = {"all": judged, "new": judged}
    told = {
        "bundle": "sha256:abc",
        "champion": "sha256:def0123456789",
        "judged_days": 7,
        "protocols": protocols,
        "slices": {f"slice {at}": protocols for at in range(12)},
        "cold": {f"{at} baskets known": {"all": judged} for at in range(3)},
        "answer": {"k": 10, "metrics": {"ndcg@10": number}, "empty": 0, "short": 0, "forbidden": 0},
        "bundle_bytes": 1_500_000,
    }
    ranking = {"seed": 3, "cuts": ["2024-01-01"], "light": {"held_out": {"all ndcg@10": 0.2}, "losses": [0.5, 0.4]}}
    verdict = {"passed": True, "sentence": "Passed: NDCG@10 0.25 <b>.", "checks": [{"name": "one", "passed": True, "sentence": "1 < 2"}]}
    return Making({"settings": {}, "span": {"cut": "2024-01-08"}}, told, {"cpu_ms_p50": 1.5}, verdict, ranking=ranking)


def test_what_is_shown_is_a_selection_in_groups_each_error_beside_its_number(many: Making) -> None:
    shown = figures(many)
    assert 60 < len(shown) < 200  # the file has some 900
    assert all(name.count("/") == 1 for name in shown)
    assert {name.partition("/")[0] for name in shown} == {"judged on all", "judged on new", "answer", "slices", "cold", "cost", "held out"}
    assert shown["judged on all/ndcg at 10"] == 0.25
    assert shown["judged on all/ndcg at 10 error"] == 0.01
    assert shown["judged on new/mrr ahead of champion error"] == 0.01
    assert curves(many) == {"losses/light": [0.5, 0.4]}


def test_the_report_says_everything_and_nothing_of_the_data_becomes_markup(many: Making) -> None:
    page = report(TINY, many, "r1")
    assert "Passed: NDCG@10 0.25 &lt;b&gt;." in page
    assert "1 &lt; 2" in page
    assert "popularity and the champion of the time, bundle def012345678" in page
    assert "http" not in page.replace("<!doctype html>", "")  # opens without a network


def test_the_version_s_page_says_what_it_is_how_it_was_judged_and_what_to_do(tmp_path: Path, home: Path, two: tuple[Made, Made]) -> None:
    record = two[0].register(tmp_path / "out", home)
    note_cause("tastes jumped", str(tmp_path / "out"), str(home), "")
    with open_registry(home, "") as client:
        version = client.get_model_version("shortlist-tiny", record["version"])
        run = client.get_run(record["run"])
        files = {file.path for file in client.list_artifacts(record["run"])}
        plots = {file.path for file in client.list_artifacts(record["run"], "plots")}
    for part in (
        "**Passed: NDCG@10 0.2.**",
        f"Bundle `{two[0].digest}`",
        "Judged on the 7 days after the cut, against popularity; there was no champion",
        "| ndcg@10, all | 0.2000 ± 0.0100 | +0.1000 ± 0.0120 |",
        "1 checks, 0 failed",
        "An answer takes 1.5 ms of CPU, the bundle 1.5 MB.",
        "give it the alias `champion` here",
        "or run `shortlist promote tiny`",
    ):
        assert part in version.description, part
    assert version.tags["ndcg at 10"] == "0.2000 ± 0.0100"
    assert version.tags["ndcg at 10 ahead of popularity"] == "+0.1000 ± 0.0120"
    assert version.tags["against"] == "popularity; there was no champion"
    assert version.tags["cause"] == run.data.tags["cause"] == "tastes jumped"
    assert run.data.metrics["judged on all/ndcg at 10"] == 0.2
    assert run.data.tags["gate"] == "passed"
    assert run.data.tags["mlflow.note.content"].startswith("**Passed")
    assert {"code_version", "commit", "system.answer"} <= run.data.params.keys()
    assert files == {"bundle", "evaluation", "gate.json", "plots", "report.html", "users"}
    assert plots == {"plots/judged.png"}


def test_what_made_a_model_is_taken_from_its_steps(tmp_path: Path) -> None:
    import json

    made = looks_like(tmp_path / "made", "aaa", 0.2)
    told = {
        "tables": ("report.json", {"tables": {"events": {"rows_in": 12, "accepted": 10, "set_aside": 2}}}),
        "features": ("features.json", {"until": "2017-11-27T00:00:00+00:00"}),
        "retrieval": (
            "retrieval.json",
            {"fast": True, "seed": 3, "recall": {"all": {"linear": {"own": {"recall@1000": 0.5}, "marginal": {"recall@1000": 0.04}}}}},
        ),
        "ranking": ("ranking.json", {"seed": 3, "cuts": ["2017-11-20"]}),
    }
    for step, (name, content) in told.items():
        (tmp_path / step).mkdir()
        (tmp_path / step / name).write_text(json.dumps(content))
    making = Making.of(made.bundle, made.metrics, made.gate, *(tmp_path / step for step in told))
    settings = making.settings()
    assert (settings["seed"], settings["fast"], settings["until"], settings["cuts"]) == (
        "3",
        "True",
        "2017-11-27T00:00:00+00:00",
        "2017-11-20",
    )
    assert len(settings["data"]) == len(settings["features"]) == 64
    assert figures(making)["sources/linear recall at 1000"] == 0.5
    assert figures(making)["sources/linear marginal recall at 1000"] == 0.04
    assert "0.5000" in report(TINY, making, "r1")
    assert "+0.0400" in report(TINY, making, "r1")
    assert "<td>events</td>" in report(TINY, making, "r1")
    assert "seed 3, fast True" in description(TINY, making)
