"""The models as they are served, on the tiny bundle, whose scores are known."""

import numpy as np
import pytest

from feature_repo.names import cross_names
from serving.ranking.rankers import BadModels, ItemSide, Rankers
from tests.serving import tiny_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tiny_bundle.write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rankers(folder) -> Rankers:
    return Rankers.load(folder)


def cross(rankers: Rankers, count: int, seed: int = 0) -> np.ndarray:
    width = len(cross_names(tiny_bundle.system().kinds))
    return np.random.default_rng(seed).random((count, width), np.float32)


def user(rankers: Rankers):
    given = {name.name: name.shape for name in rankers.sessions["request"].get_inputs()}
    bag = np.zeros(given["bag"][1], np.float32) if "bag" in given else None
    return rankers.user_side(np.zeros(3, np.float32), bag)


def test_scores_do_not_depend_on_the_other_candidates(rankers: Rankers):
    rows, features = np.arange(50, dtype=np.int32), cross(rankers, 50)
    together = rankers.light(user(rankers), rows, features)
    alone = np.concatenate([rankers.light(user(rankers), rows[[n]], features[[n]]) for n in range(50)])
    assert together == pytest.approx(alone, abs=1e-5)


def test_no_candidates_give_no_logits(rankers: Rankers):
    assert rankers.heavy(user(rankers), np.empty(0, np.int32), cross(rankers, 0)).shape == (0, 2)


def test_items_posted_since_are_read_after_those_of_the_release(rankers: Rankers):
    known = len(rankers.halves["light"])
    like_seven = ItemSide(
        *(np.empty((1, 0), np.float32),) * 2, rankers.item_halves("light", np.array([7])), rankers.item_halves("heavy", np.array([7]))
    )
    grown = rankers.with_items(like_seven)
    features = np.repeat(cross(rankers, 1), 2, axis=0)
    logits = grown.heavy(user(rankers), np.array([7, known], np.int32), features)
    assert logits[0] == pytest.approx(logits[1])
    assert len(rankers.extra) == 0  # the first is unchanged


def test_too_many_request_features_are_refused(rankers: Rankers):
    with pytest.raises(BadModels, match="expected at most"):
        rankers.user_side(np.zeros(rankers.request_width + 1, np.float32), None)


def test_a_missing_graph_is_named(tmp_path):
    with pytest.raises(BadModels, match=r"request\.onnx is missing"):
        Rankers.load(tmp_path)
