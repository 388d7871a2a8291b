"""What is left of a verdict can be read by Prometheus and by people, and Evidently's own tests say what ours say."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.monitoring.report import page, prometheus, write
from components.monitoring.sample import draw
from components.monitoring.shifts import category, numeric
from components.monitoring.verdict import judge
from tests.components.monitoring.windows import PLANTED, window, written


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    _, plant = PLANTED["scores + 10 %"]
    then, now = (
        draw(written(frame, folder / f"{name}.parquet")) for name, frame in (("then", window(0, 2000)), ("now", plant(window(1, 2000))))
    )
    return then, now, judge(then, now)


def test_prometheus_reads_the_verdict(made):
    text = prometheus(made[2] | {"ctr": {"abc": {"ctr": 0.25}}}, "shop")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["shortlist_drift_verdict"].samples[0].value == 2
    p = {sample.labels["column"]: sample.value for sample in families["shortlist_drift_p"].samples}
    assert p["prediction"] < 0.01 < p["n0"]
    assert families["shortlist_drift_ctr"].samples[0].labels == {"system": "shop", "bundle": "abc"}


def test_evidently_finds_the_same_chances_and_writes_a_page(made, tmp_path):
    then, now, verdict = made
    write(verdict, "shop", then.sample, now.sample, tmp_path)
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "drift"
    assert "<html" in (tmp_path / "drift.html").read_text()[:1000].lower()
    theirs = page(then.sample, now.sample, tmp_path / "again.html")
    for name in ("n0", "n7", "prediction"):
        ours = numeric(name, then.sample[name].to_numpy(), now.sample[name].to_numpy()).chance
        assert theirs[name] == pytest.approx(ours, rel=0.05, abs=1e-6), name
    ours = category("c0", then.sample["c0"].to_numpy(str), now.sample["c0"].to_numpy(str))
    assert (theirs["c0"] < 0.01) == (ours.chance < 0.01)
