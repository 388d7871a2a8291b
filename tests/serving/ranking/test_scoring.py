"""From logits to the order of an answer, worked out by hand."""

import numpy as np
import pytest

from feature_repo.names import CROSS_FEATURES
from serving.objectives import Objective
from serving.query import Candidates, Query, Request
from serving.ranking.heads import Heads
from serving.ranking.scoring import Scores, Scoring, session_lift
from serving.state.user_state import UserState
from serving.system import Learning
from tests.components.retrieval.worlds import CUT_DAY, catalogue

FRESH_CLICK = np.log1p(0.6)
LOGITS = np.array([[0.0, 3.0], [2.0, -1.0], [1.0, 1.0]], np.float32)  # repeat, discover
SEEN = np.array([True, False, False])


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def heads(repeat: float = 1, discover: float = 1) -> Heads:
    """Those of a shop."""
    return Heads.of({"repeat": Objective("again positive", repeat), "discover": Objective("first positive", discover)})


def test_each_candidate_is_judged_by_its_own_head() -> None:
    assert heads().scores(LOGITS, SEEN) == pytest.approx([sigmoid(0), sigmoid(-1), sigmoid(1)], rel=1e-6)


def test_the_greatest_weight_counts_as_one_and_the_other_beside_it() -> None:
    found = heads(0.7, 0.35).scores(LOGITS, SEEN)
    assert found == pytest.approx([sigmoid(0), 0.5 * sigmoid(-1), 0.5 * sigmoid(1)], rel=1e-6)
    found = heads(1.0, 4.0).scores(LOGITS, SEEN)
    assert found == pytest.approx([0.25 * sigmoid(0), sigmoid(-1), sigmoid(1)], rel=1e-6)


def test_a_lift_is_added_to_the_logit_and_those_asked_for_keep_their_own() -> None:
    lift = np.array([0.5, 0.0, -2.0], np.float32)
    assert heads().scores(LOGITS, SEEN, lift) == pytest.approx([sigmoid(0.5), sigmoid(-1), sigmoid(-1)], rel=1e-6)
    at = np.array([2, 0], np.int32)
    assert heads().scores(LOGITS[at], SEEN, lift, at) == pytest.approx([sigmoid(-1), sigmoid(0.5)], rel=1e-6)
    assert heads().scores(LOGITS[at], SEEN, None, at) == pytest.approx([sigmoid(1), sigmoid(0)], rel=1e-6)


def test_heads_that_judge_the_same_item_add_up_a_weighted_one_by_the_value_it_expects() -> None:
    objectives = {
        "watch": Objective("watch", 0.5, loss="weighted", usual=300),
        "click": Objective("click", 1.0),
        "new": Objective("first share", 0.25),
    }
    logits = np.array([[np.log(2.0), 0.0, 3.0], [np.log(0.1), -1.0, 3.0]], np.float32)
    found = Heads.of(objectives).scores(logits, np.array([True, False]))
    expected = [0.5 * 2.0 + sigmoid(0), 0.5 * 0.1 + sigmoid(-1) + 0.25 * sigmoid(3)]
    assert found == pytest.approx(expected, rel=1e-3)  # an expected value is held under 10,000 usual ones
    assert np.isfinite(Heads.of(objectives).scores(np.full((1, 3), 99, np.float32), np.array([True]))).all()


def test_an_explanation_takes_apart_the_mean_logit_of_the_heads_that_judge() -> None:
    assert heads(0.7, 0.3).logit(LOGITS, SEEN) == pytest.approx([0, -1, 1])
    both = Heads.of({"click": Objective("click", 3.0), "share": Objective("share", 1.0)})
    assert both.logit(LOGITS, SEEN) == pytest.approx([0.75, 1.25, 1.0])


def test_a_fresh_click_makes_the_odds_of_the_item_tenfold_its_types_1_8_its_brands_1_15() -> None:
    cross = np.zeros((3, len(CROSS_FEATURES)), np.float32)
    for row, name in enumerate(("session_item", "session_category_2", "session_brand")):
        cross[row, CROSS_FEATURES.index(name)] = FRESH_CLICK
    assert np.exp(session_lift(cross)) == pytest.approx([10.5, 1.76, 1.15], rel=0.01)


def test_by_fusion_what_was_looked_at_counts_like_the_best_that_sources_name() -> None:
    cross = np.zeros((3, len(CROSS_FEATURES)), np.float32)
    cross[0, CROSS_FEATURES.index("session_item")] = FRESH_CLICK
    for own, more in ((0.1, np.log(2)), (0.0, np.log(0.2 / 1e-9))):
        fused = np.array([own, 0.2, 0.05], np.float32)
        assert session_lift(cross, fused) == pytest.approx([5 * FRESH_CLICK + more, 0, 0], rel=1e-5)


def test_of_a_stranger_the_fused_rank_scores_and_what_was_looked_at_leads() -> None:
    items = catalogue([f"{number}" for number in range(4)])
    known = UserState("u").with_session_event(int(items.keys[2]), "click", CUT_DAY)
    fused, rows = np.array([0.1, 0.2, 0.0, 0.05], np.float32), np.arange(4, dtype=np.int32)
    parts = np.zeros((4, 1), np.float32)
    given = Candidates(rows, parts, parts, fused, np.zeros(4, bool))
    asked = Query(Request("u", 4, CUT_DAY), known, items, Learning())
    found = scoring().light(asked, None, given)  # type: ignore[arg-type]
    assert found.light[[0, 1, 3]] == pytest.approx(fused[[0, 1, 3]] * np.exp(found.lift[[0, 1, 3]]))
    assert found.light[2] == pytest.approx(0.2 * np.exp(session_lift(found.cross)[2]), rel=1e-4)
    assert (found.kept.tolist()[0], found.by_fusion) == (2, True)
    alone = scoring().light(Query(Request("u", 4, CUT_DAY), UserState("u"), items, Learning()), None, given)  # type: ignore[arg-type]
    assert (alone.light.tolist(), alone.lift) == (fused.tolist(), None)


def pool(size: int) -> Candidates:
    rows = np.arange(100, 100 + size, dtype=np.int32)
    return Candidates(rows, np.zeros((size, 1), np.float32), np.zeros((size, 1), np.float32), np.zeros(size, np.float32), rows % 2 == 0)


def scoring() -> Scoring:
    return Scoring(None, heads(), 3)  # type: ignore[arg-type]  # no model is asked


LIGHT = np.array([0.2, 0.9, 0.5, 0.8, 0.9], np.float32)  # best first: 1, 4, 3, 2, 0


@pytest.mark.parametrize("order", [np.array([1, 4, 3, 2, 0], np.int32), None], ids=["told", "not told"])
def test_the_heavy_order_comes_first_and_no_score_rises_after_it(order: np.ndarray | None) -> None:
    kept = np.array([1, 4, 3], np.int32)
    found = scoring().order(pool(5), Scores(LIGHT, kept, np.array([0.3, 0.7, 0.4], np.float32), order=order))
    assert found.rows.tolist() == [104, 103, 101, 102, 100]
    assert found.scores == pytest.approx([0.7, 0.4, 0.3, 0.3, 0.2])  # .5 is cut off at the last heavy score
    assert found.seen.tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("order", [np.array([1, 4, 3, 2, 0], np.int32), None], ids=["told", "not told"])
def test_without_the_heavy_ranker_the_light_order_answers(order: np.ndarray | None) -> None:
    found = scoring().order(pool(5), Scores(LIGHT, np.array([1, 4, 3], np.int32), None, order=order))
    assert found.rows.tolist() == [101, 104, 103, 102, 100]
    assert found.scores == pytest.approx([0.9, 0.9, 0.8, 0.5, 0.2])
