"""The gate on the small world: impostors are refused, a good bundle passes with a popular item out of stock and where nothing repeats."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from components.evaluation.compare import CANDIDATE, Known, compare, popular
from components.evaluation.evaluate import evaluate
from components.evaluation.gate import decide
from components.evaluation.truth import read_truth
from feature_repo.schema import POLICY_FLAGS
from serving.bundle.bundle import settings_of, show, write_bundle
from serving.bundle.catalogue import Catalogue
from serving.rules.specs import not_seen
from tests.world.impostors import with_scores

IMPOSTORS = ("popularity", "popularity less had", "popular in department", "popular in category", "popular in type", "random")


def verdict(system, bundle, features, out, **more):
    evaluate(system, bundle, features, out, **more)
    decide(system, out, out / "gate")
    return json.loads((out / "gate" / "gate.json").read_text())


def repacked(bundle, out, *, flags=None, system=None):
    """The bundle with other flags on its items, or for another system's rules."""
    parts = out / "parts"
    shutil.copytree(bundle, parts)
    if flags is not None:
        shutil.rmtree(parts / "item_table")
        replace(Catalogue.load(bundle / "item_table"), flags=flags).save(parts / "item_table")
    manifest = {name: value for name, value in show(bundle).items() if name not in ("digest", "files", "format")}
    if system is not None:
        manifest["settings"] = settings_of(system)
    (parts / "bundle.json").unlink()
    return write_bundle({path.name: path for path in parts.iterdir()}, manifest, out)


@pytest.fixture(scope="module")
def passed(trained, tmp_path_factory):
    return verdict(trained.system, trained.bundle, trained.features, tmp_path_factory.mktemp("passed"))


def test_a_good_bundle_passes_and_every_impostor_was_asked_and_refused(passed):
    assert passed["passed"], passed["sentence"]
    asked = {check["name"]: check for check in passed["checks"] if check["name"].startswith("impostor")}
    assert set(asked) == {f"impostor: {name}" for name in IMPOSTORS}
    assert all(check["sentence"].endswith("is refused.") for check in asked.values())
    guarded = [check for check in passed["checks"] if "after Holm" in check["sentence"]]
    assert guarded
    assert all("it would have seen a difference of" in check["sentence"] for check in guarded)


def test_the_strongest_impostor_is_what_decided(passed):
    values = {check["name"]: check for check in passed["checks"]}
    assert passed["decided_by"].startswith("ndcg@5 against popular in ")
    assert values[passed["decided_by"]]["smallest_effect"] > 0


@pytest.mark.parametrize("never_repeats", [False, True])
def test_bundles_that_rank_by_popularity_or_luck_are_refused(trained, tmp_path, never_repeats):
    # where nothing repeats, a popularity ranker under the rules is popularity less had
    system = replace(trained.system, rules=(*trained.system.rules, not_seen())) if never_repeats else trained.system
    truth = read_truth(trained.features)
    lately = Known.of(truth.states, truth.catalogue).lately
    popular = 0.05 + 0.9 * (lately / (lately.max() + 1)) - 1e-6 * np.arange(len(lately))
    for name, worth in (("popularity", popular), ("luck", np.random.default_rng(0).uniform(0.1, 0.9, len(lately)))):
        bundle = with_scores(trained.bundle, trained.system, worth, tmp_path / name)
        found = verdict(system, repacked(bundle, tmp_path / name / "again", system=system), trained.features, tmp_path / name / "judged")
        assert not found["passed"], (name, found["sentence"])
        assert found["protocol"] == ("new" if never_repeats else "all")


def test_a_popular_item_out_of_stock_costs_the_bundle_nothing_its_rivals_keep(trained, passed, tmp_path):
    features, truth = tmp_path / "features", read_truth(trained.features)
    shutil.copytree(trained.features, features)
    flags = np.asarray(truth.catalogue.flags).copy()
    lately = Known.of(truth.states, truth.catalogue).lately
    flags[np.argmax(lately)] |= 1 << POLICY_FLAGS.index("out_of_stock")
    table = features / "cuts" / truth.cut / "item_table"
    shutil.rmtree(table)
    replace(truth.catalogue, flags=flags).save(table)
    found = verdict(trained.system, repacked(trained.bundle, tmp_path / "made", flags=flags), features, tmp_path / "judged")
    assert found["passed"], found["sentence"]
    metrics = json.loads((tmp_path / "judged" / "metrics.json").read_text())
    assert metrics["answer"]["forbidden"] == 0
    # the champion learnt when it was in stock lists it; judged now, it may not score with it either
    again = verdict(
        trained.system, repacked(trained.bundle, tmp_path / "b", flags=flags), features, tmp_path / "c", champion=trained.bundle
    )
    assert again["passed"], again["sentence"]


def test_one_user_with_a_target_is_told_that_nothing_can_be_judged(trained, tmp_path):
    import pyarrow.parquet as pq

    features, truth = tmp_path / "features", read_truth(trained.features)
    shutil.copytree(trained.features, features)
    labels = features / "cuts" / truth.cut / "labels.parquet"
    table = pq.read_table(labels)
    labels.unlink()
    pq.write_table(table.slice(0, 1), labels)
    found = verdict(trained.system, trained.bundle, features, tmp_path / "judged")
    assert (found["passed"], found["outcome"]) == (False, "cannot judge")
    assert found["sentence"].startswith("Cannot judge: 1 user had something in the 7 days after")


@pytest.mark.parametrize("most", [16, 32])
def test_a_sample_says_of_all_users_what_the_whole_says_within_its_error(trained, most):
    """Lists that are the same whoever is drawn: popularity's, of which each user's number is known from the whole week."""
    whole = read_truth(trained.features)
    barred = np.zeros(len(whole.catalogue), bool)
    some, known = read_truth(trained.features, most), Known.of(whole.known, whole.catalogue)
    assert (some.of, len(some.users) < len(whole.users)) == (len(whole.users), True)
    found, sampled = (
        compare({CANDIDATE: popular(known, 100, of.had, barred)}, of.target)["recommenders"][CANDIDATE] for of in (whole, some)
    )
    for metric in ("ndcg@10", "recall@10", "recall@100", "mrr"):
        told = sampled[metric]
        assert told["error"] > found[metric]["error"]
        assert abs(told["value"] - found[metric]["value"]) < 3 * told["error"], metric
        assert told["error"] < 4 * found[metric]["error"] * np.sqrt(some.of / len(some.users)), metric
