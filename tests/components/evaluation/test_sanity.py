"""A bundle learnt again is adopted when it answers as its judged twin, and not when it is another recommender."""

import json

import pytest

from components.evaluation.batch import Question, ask
from components.evaluation.sanity import overlap, sanity
from tests.serving import tiny_bundle
from tests.world.impostors import with_scores


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sanity")
    tiny_bundle.states().save(folder / "users")
    return tiny_bundle.write_tiny(folder), folder / "users"


def verdict(made, bundle, tmp_path):
    twin, users = made
    passed = sanity(tiny_bundle.system(), bundle, twin, users, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert written["passed"] == passed
    return written


def test_the_same_recommender_overlaps_wholly(made, tmp_path):
    found = verdict(made, made[0], tmp_path)
    assert found["passed"]
    assert found["sentence"].startswith("Passed: overlap@10 with the judged twin is 1.000 over 12 users")


def test_overlap_is_the_share_of_items_both_list_by_key(made):
    import numpy as np

    bundle, users = made
    (told,) = ask(tiny_bundle.system(), bundle, users, [Question(np.arange(2), 10)])
    other = type(told)(told.rows.copy(), told.scores, told.source, told.cpu_ms, told.wall_ms)
    other.rows[0, 5:] = [row for row in range(100, 200) if row not in told.rows[0]][:5]  # half of user 0's list is another
    assert overlap(told, bundle, other, bundle) == pytest.approx((0.5 + 1.0) / 2)


def test_another_recommender_is_refused_and_the_overlap_is_said(made, tmp_path):
    import numpy as np

    worth = np.linspace(0.05, 0.9, tiny_bundle.ITEMS)  # the tiny bundle's order turned round
    turned = with_scores(made[0], tiny_bundle.system(), worth, tmp_path / "turned")
    found = verdict(made, turned, tmp_path)
    assert (found["passed"], found["decided_by"]) == (False, "overlap with the judged twin")
