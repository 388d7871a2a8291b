"""The gate lets through what is better than popularity and no worse than the champion, and says which number decided."""

import copy
import json

import pytest

from components.evaluation.gate import GUARDED, decide
from serving.system import System


def judged(users=500, champion=False, **differences):
    """Metrics of one protocol: the candidate is ahead of each rival by `differences[rival]`, with an error of .002."""
    rivals = ["popularity"] + (["champion"] if champion else [])
    scores = {metric: {"value": 0.3, "error": 0.007} for metric in GUARDED}
    return {
        "users": users,
        "recommenders": dict.fromkeys(("candidate", *rivals), scores),
        "against": {name: {metric: {"value": differences.get(name, 0.1), "error": 0.002} for metric in GUARDED} for name in rivals},
    }


def metrics(champion=None, **differences):
    one = judged(champion=bool(champion), **differences)
    return {
        "bundle": "sha256:new",
        "champion": champion,
        "bundle_bytes": 10_000_000,
        "protocols": {"all": one, "new": copy.deepcopy(one)},
        "slices": {"under 5 baskets": {"all": copy.deepcopy(one), "new": copy.deepcopy(one)}},
        "cold": {"0 baskets known": {"all": copy.deepcopy(one)}},
        "answer": {"empty": 0, "forbidden": 0},
    }


def verdict(system: System, tmp_path, found, cpu_ms=5.0):
    (tmp_path / "metrics.json").write_text(json.dumps(found))
    (tmp_path / "latency.json").write_text(json.dumps({"cpu_ms_p50": cpu_ms}))
    passed = decide(system, tmp_path, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert written["passed"] == passed
    return written


def test_a_bundle_well_ahead_of_popularity_passes_and_the_sentence_holds_the_number(world_system, tmp_path):
    found = verdict(world_system, tmp_path, metrics())
    assert found["passed"]
    assert found["sentence"] == (
        "Passed: NDCG@10 0.3000 is ahead of popularity's 0.3000: difference +0.1000 ± 0.0020, needed over 2 errors."
    )


def test_a_copy_of_popularity_is_refused(world_system, tmp_path):
    found = verdict(world_system, tmp_path, metrics(popularity=0.0))
    assert (found["passed"], found["decided_by"]) == (False, "ndcg@10 against popularity")
    assert found["sentence"].startswith("Refused: NDCG@10")


def test_a_lead_within_two_errors_is_no_lead(world_system, tmp_path):
    assert not verdict(world_system, tmp_path, metrics(popularity=0.0039))["passed"]
    assert verdict(world_system, tmp_path, metrics(popularity=0.0041))["passed"]


def test_a_bundle_clearly_behind_the_champion_is_refused_and_one_within_the_error_is_not(world_system, tmp_path):
    worse = metrics(champion="sha256:old")
    worse["protocols"]["new"]["against"]["champion"]["recall@100"] = {"value": -0.01, "error": 0.002}
    assert verdict(world_system, tmp_path, worse)["decided_by"] == "recall@100 new against champion, all households"
    worse["protocols"]["new"]["against"]["champion"]["recall@100"]["value"] = -0.003
    assert verdict(world_system, tmp_path, worse)["passed"]


def test_harm_to_one_slice_is_seen_behind_a_good_mean(world_system, tmp_path):
    found = metrics()
    found["slices"]["under 5 baskets"]["new"]["against"]["popularity"]["ndcg@10"]["value"] = -0.05
    assert verdict(world_system, tmp_path, found)["decided_by"] == "ndcg@10 new against popularity, under 5 baskets"


def test_a_slice_of_few_users_decides_nothing(world_system, tmp_path):
    found = metrics()
    small = judged(users=29, popularity=-0.5)
    found["slices"]["under 5 baskets"]["new"] = small
    assert verdict(world_system, tmp_path, found)["passed"]


@pytest.mark.parametrize(("part", "name"), [("empty", "empty answers"), ("forbidden", "forbidden items")])
def test_one_empty_or_forbidden_answer_is_enough_to_refuse(world_system, tmp_path, part, name):
    found = metrics()
    found["answer"][part] = 1
    assert verdict(world_system, tmp_path, found)["decided_by"] == name


def test_a_bundle_too_large_or_too_slow_is_refused(world_system, tmp_path):
    assert verdict(world_system, tmp_path, metrics() | {"bundle_bytes": 3 << 30})["decided_by"] == "size"
    assert verdict(world_system, tmp_path, metrics(), cpu_ms=world_system.budget.total_ms + 1)["decided_by"] == "cost"
