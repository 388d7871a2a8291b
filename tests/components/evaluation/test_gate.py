"""The gate lets through what is better than popularity and no worse than the champion, and says which number decided."""

import copy
import json

import numpy as np
import pytest

from components.evaluation.gate import _no_harm, decide
from serving.system import System

GUARDED = ("ndcg@10", "recall@100", "recall@1000")


def judged(users=500, champion=False, error=0.002, **differences):
    """Metrics of one protocol: the candidate is ahead of each rival by `differences[rival]`, with an error of .002."""
    rivals = ["popularity"] + (["champion"] if champion else [])
    scores = {metric: {"value": 0.3, "error": 0.007} for metric in GUARDED}
    return {
        "users": users,
        "recommenders": dict.fromkeys(("candidate", *rivals), scores),
        "against": {name: {metric: {"value": differences.get(name, 0.1), "error": error} for metric in GUARDED} for name in rivals},
    }


def asked(users=500, lead=0.1, strongest=0.1, passing=""):
    """What `impostors.judged` writes: leads over two rivals, and an impostor that gets through if it is named."""
    rivals = ("popularity", "popular in category")
    ahead, level = {"value": 0.2, "error": 0.002}, {"value": 0.0, "error": 0.0}
    return {
        "users": users,
        "values": {"popularity": {"value": 0.3}, "popular in category": {"value": 0.31}, "random": {"value": 0.01}},
        "candidate": {"value": 0.3 + lead},
        "candidate_against": {name: {"value": by, "error": 0.002} for name, by in zip(rivals, (lead, strongest), strict=True)},
        "asked": {name: dict.fromkeys(rivals, ahead if name == passing else level) for name in (*rivals, "random")},
    }


def metrics(champion=None, users=500, deciding="all", impostors=None, **differences):
    one = judged(users, champion=bool(champion), **differences)
    return {
        "bundle": "sha256:new",
        "champion": champion,
        "cut": "2024-03-18",
        "judged_days": 7,
        "deciding": deciding,
        "measures": list(GUARDED),
        "impostors": impostors or asked(users, differences.get("popularity", 0.1)),
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
        "Passed: NDCG@10 0.4000 (all) is ahead of 'popular in category''s 0.3100: difference +0.1000 ± 0.0020, needed over 2 errors."
    )
    assert (found["outcome"], found["protocol"], found["margin"], found["weeks"]) == ("passed", "all", 0.05, ["2024-03-18"])


def test_a_copy_of_popularity_is_refused(world_system, tmp_path):
    found = verdict(world_system, tmp_path, metrics(popularity=0.0))
    assert (found["passed"], found["decided_by"]) == (False, "ndcg@10 against popularity")
    assert found["sentence"].startswith("Refused: NDCG@10")


def test_a_lead_within_two_errors_is_no_lead(world_system, tmp_path):
    assert not verdict(world_system, tmp_path, metrics(popularity=0.0039))["passed"]
    assert verdict(world_system, tmp_path, metrics(popularity=0.0041))["passed"]


def test_being_ahead_of_popularity_is_not_enough_where_another_impostor_is_stronger(world_system, tmp_path):
    found = verdict(world_system, tmp_path, metrics(impostors=asked(lead=0.1, strongest=0.0)))
    assert (found["passed"], found["decided_by"]) == (False, "ndcg@10 against popular in category")


def test_an_impostor_that_gets_through_makes_the_gate_say_that_it_cannot_judge(world_system, tmp_path):
    found = verdict(world_system, tmp_path, metrics(impostors=asked(passing="random")))
    assert (found["passed"], found["outcome"], found["decided_by"]) == (False, "cannot judge", "impostor: random")
    assert found["sentence"].startswith("Cannot judge: random, asked as a candidate")


@pytest.mark.parametrize("users", [0, 1])
def test_one_user_or_none_cannot_be_judged_and_is_told_so(world_system, tmp_path, users):
    found = metrics(impostors={"users": users})
    found["protocols"] = {name: {"users": users, "recommenders": {}, "against": {}} for name in ("all", "new")}
    found["slices"], found["cold"] = {}, {}
    said = verdict(world_system, tmp_path, found)
    assert (said["passed"], said["outcome"]) == (False, "cannot judge")
    assert said["sentence"].startswith(f"Cannot judge: {users} user")


def test_not_worse_has_to_be_shown_by_the_margin_and_states_the_smallest_effect_it_sees(world_system, tmp_path):
    # margin 5 % of .3 = .015. -.003 ± .002 is six errors above it: shown. ± .02 shows nothing: not passed as harmless.
    close = metrics(champion="sha256:old")
    close["protocols"]["all"]["against"]["champion"]["recall@100"] = {"value": -0.003, "error": 0.002}
    assert verdict(world_system, tmp_path, close)["passed"]
    close["protocols"]["all"]["against"]["champion"]["recall@100"]["error"] = 0.02
    unsure = verdict(world_system, tmp_path, close)
    assert unsure["decided_by"] == "recall@100 all against champion, all households"
    assert "not shown to be no worse" in unsure["sentence"]
    check = next(check for check in unsure["checks"] if check["name"] == unsure["decided_by"])
    assert check["smallest_effect"] == pytest.approx((2.13 + 0.84) * 0.02, abs=5e-4)  # alpha .05 / 3, power .8
    assert f"a difference of {check['smallest_effect']:.4f}" in unsure["sentence"]


def test_two_weeks_are_judged_together(world_system, tmp_path):
    found = metrics(champion="sha256:old")
    found["protocols"]["all"]["against"]["champion"]["ndcg@10"] = {"value": 0.0, "error": 0.002}
    bad = judged(champion=True)
    bad["against"]["champion"]["ndcg@10"] = {"value": -0.06, "error": 0.002}  # mean of the weeks: -.03, twice the margin
    found["weeks"] = {"2024-03-25": {"all": bad, "new": bad}}
    said = verdict(world_system, tmp_path, found)
    assert (said["decided_by"], said["weeks"]) == ("ndcg@10 all against champion, all households", ["2024-03-18", "2024-03-25"])


def test_harm_in_the_other_protocol_is_seen_and_doubt_is_no_harm(world_system, tmp_path):
    found = metrics(champion="sha256:old")
    found["protocols"]["new"]["against"]["champion"]["recall@100"] = {"value": -0.03, "error": 0.002}
    assert verdict(world_system, tmp_path, found)["decided_by"] == "recall@100 new against champion, all households"
    found["protocols"]["new"]["against"]["champion"]["recall@100"] = {"value": -0.03, "error": 0.02}
    assert verdict(world_system, tmp_path, found)["passed"]


def test_a_system_that_never_repeats_is_not_asked_what_it_would_repeat(world_system, tmp_path):
    found = metrics(deciding="new", champion="sha256:old")
    found["protocols"]["all"]["against"]["champion"] = {metric: {"value": -0.3, "error": 0.002} for metric in GUARDED}
    found["slices"] = {}
    assert verdict(world_system, tmp_path, found)["passed"]


def test_harm_to_one_slice_is_seen_behind_a_good_mean(world_system, tmp_path):
    found = metrics()
    found["slices"]["under 5 baskets"]["new"]["against"]["popularity"]["ndcg@10"]["value"] = -0.05
    assert verdict(world_system, tmp_path, found)["decided_by"] == "ndcg@10 new against popularity, under 5 baskets"


def test_a_dozen_slices_of_pure_luck_are_refused_no_oftener_than_stated(world_system):
    random, refused = np.random.default_rng(0), 0
    for _ in range(200):  # every difference sits on the margin itself, where a single test errs with 5 %
        found = metrics()
        for part in range(12):
            one = judged()
            for metric in GUARDED:
                one["against"]["popularity"][metric]["value"] = -0.015 + random.normal(0, 0.002)
            found["slices"][f"slice {part}"] = {"all": one}
        refused += not all(check.passed for check in _no_harm(found))
    assert refused / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


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
