"""What the pipelines' page shows of a step is what the step wrote."""

import json
from pathlib import Path

from kfp.dsl import HTML, Metrics

from components.shown import judged_numbers, show_numbers, show_verdict


def test_numbers_of_an_evaluation_are_metrics_by_recommender(tmp_path: Path) -> None:
    recommenders = {"candidate": {"ndcg@10": {"value": 0.25, "error": 0.01}, "lists": 3}, "popularity": {"ndcg@10": {"value": 0.125}}}
    (tmp_path / "metrics.json").write_text(json.dumps({"protocols": {"all": {"recommenders": recommenders}}}))
    metrics = Metrics(uri=str(tmp_path / "numbers"))
    show_numbers(judged_numbers(tmp_path), metrics)
    assert metrics.metadata == {"candidate ndcg@10": 0.25, "popularity ndcg@10": 0.125}
    assert json.loads((tmp_path / "numbers").read_text()) == metrics.metadata


def test_a_verdict_is_a_page_with_each_check_and_its_sentence(tmp_path: Path) -> None:
    checks = [{"name": "a", "passed": True, "sentence": "1 < 2"}, {"name": "b", "passed": False, "sentence": "too slow"}]
    (tmp_path / "gate.json").write_text(json.dumps({"passed": False, "sentence": "b decides", "checks": checks}))
    page = HTML(uri=str(tmp_path / "page"))
    show_verdict(tmp_path, page)
    text = (tmp_path / "page").read_text()
    assert "Refused" in text
    assert "b decides" in text
    assert "<td>passed</td><td>a</td><td>1 &lt; 2</td>" in text
    assert "<td>failed</td><td>b</td><td>too slow</td>" in text
