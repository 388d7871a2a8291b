"""What each source says in the fused rank is learnt from the weeks after the cuts, where the system asks for it, and served."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.cut import Cut
from components.retrieval.fit import fit
from components.retrieval.report import questions
from components.retrieval.tower_model import Towers
from components.retrieval.two_tower import user_vectors
from components.retrieval.weights import RankedLists, ascend, nobodys_vector
from serving.bundle.bundle import settings_of
from serving.bundle.catalogue import Catalogue
from serving.retrieval.linear import linear
from serving.retrieval.sources import load_sources
from serving.retrieval.trending import trending
from serving.retrieval.two_tower import two_tower
from serving.system import load_system
from tests.components.retrieval import worlds
from tests.components.retrieval.test_fit import SYSTEM, features
from tests.components.retrieval.worlds import CUT_DAY, catalogue

NOISE, RIGHT = trending(share=0.5, weight=1.0, discover_weight=1.0), linear(share=0.5, weight=0.0, discover_weight=0.0)
LEARNT = replace(SYSTEM, sources=(NOISE, RIGHT), fusion="learnt")
LISTS = (np.array([4, 3, 2], np.int32), np.array([1, 4], np.int32))


def test_the_ndcg_of_a_fused_order_is_that_worked_out_by_hand() -> None:
    asked = RankedLists(
        LISTS, (replace(NOISE, settings={"offset": 1.0}), replace(RIGHT, settings={"offset": 1.0})), np.array([1, 3], np.int32)
    )
    # (1, 1): 4 has 1 + 1/2, 1 has 1, 3 has 1/2, 2 has 1/3; of the two chosen 1 stands second, 3 third; both first would be 1 + 1/log2(3)
    assert asked.ndcg(np.array([1.0, 1.0])) == pytest.approx((1 / np.log2(3) + 1 / 2) / (1 + 1 / np.log2(3)))
    assert asked.ndcg(np.array([0.0, 1.0])) == pytest.approx(1 / (1 + 1 / np.log2(3)))  # what no list brings is no hit
    assert asked.ndcg(np.array([0.0, 0.0])) == 0


def test_a_source_that_says_nothing_loses_its_say_and_one_that_helps_nobody_keeps_the_files() -> None:
    asked = [RankedLists(LISTS, (NOISE, RIGHT), np.array([1], np.int32))] * 3
    assert ascend(asked, [1.0, 0.03]) == [0.0, 0.03]
    assert ascend([RankedLists(LISTS, (NOISE, RIGHT), np.array([9], np.int32))], [0.2, 0.7]) == [0.2, 0.7]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("weights")
    fit(LEARNT, features(home / "features"), home / "out", fast=True)
    return home / "features", home / "out"


def test_the_source_that_finds_what_was_chosen_is_heard_and_the_answer_is_made_with_it(fitted: tuple[Path, Path]) -> None:
    folder, out = fitted
    learnt = json.loads((out / "retrieval.json").read_text())["weights"]
    assert learnt["linear"]["discover_weight"] > 0
    for cut in ("2017-01-01", "2017-01-08"):
        items = Catalogue.load(folder / "cuts" / cut / "item_table")
        found = load_sources(LEARNT.sources, out / "cuts" / cut / "sources", items)
        assert [{name: one.spec.settings[name] for name in learnt[one.spec.kind]} for one in found] == [
            learnt["trending"],
            learnt["linear"],
        ]
        assert [one.spec.share for one in found] == [0.5, 0.5]


def test_the_judged_week_teaches_no_weight(tmp_path: Path, fitted: tuple[Path, Path]) -> None:
    folder = features(tmp_path / "features")
    labels = folder / "cuts" / "2017-01-08" / "labels.parquet"
    labels.unlink()
    fit(LEARNT, folder, tmp_path / "out", fast=True)
    weights = [json.loads((out / "retrieval.json").read_text())["weights"] for out in (tmp_path / "out", fitted[1])]
    assert weights[0] == weights[1]


def test_as_written_nothing_is_learnt_and_the_settings_say_no_more_than_before(tmp_path: Path) -> None:
    fit(replace(LEARNT, fusion="as written"), features(tmp_path / "features"), tmp_path / "out", fast=True)
    assert not list((tmp_path / "out").rglob("fusion.json"))
    assert "fusion" not in settings_of(load_system("shop"))
    assert settings_of(replace(load_system("shop"), fusion="learnt"))["fusion"] == "learnt"
    with pytest.raises(ValueError, match="fusion is 'guess'"):
        replace(SYSTEM, fusion="guess")


@pytest.mark.parametrize("discover", [False, True])
@pytest.mark.parametrize("most", [1, 3, 100])
def test_of_who_has_something_to_find_so_many_are_asked_spread_evenly(discover: bool, most: int) -> None:
    """Against a loop over all users: the truth of each, and whom a stride over them takes."""
    random = np.random.default_rng(2)
    names, ids = [f"u{n}" for n in range(9)], list("abcdef")
    world = worlds.cut([(name, item, CUT_DAY - 1) for name in names for item in random.choice(ids, 3, replace=False)], catalogue(ids))
    pairs = sorted({(int(random.integers(9)), int(random.integers(6))) for _ in range(14)})
    world.__dict__["labels"] = np.array([user for user, _ in pairs]), np.array([row for _, row in pairs], np.int32)
    truth: dict[int, list[int]] = {}
    for user, row in pairs:
        if not discover or row not in world.catalogue.rows_of_keys(world.users[user].keys):
            truth.setdefault(user, []).append(row)
    users = list(truth)
    expected = [users[int(at)] for at in np.linspace(0, len(users) - 1, min(most, len(users)))]
    vectors = np.arange(9.0)[:, None]
    found = list(questions(SYSTEM, world, discover, vectors, most))
    assert [one.query.state.user_id for one in found] == [names[user] for user in expected]
    assert [one.truth.tolist() for one in found] == [truth[user] for user in expected]
    assert [one.vector.tolist() for one in found] == [[float(user)] for user in expected]


def test_newcomers_questions_count_too(tmp_path: Path) -> None:
    """What `linear` finds is all that those who are known choose; of a newcomer it knows nothing, and trending says at least something."""
    silent, right = trending(share=0.5, weight=0.0, discover_weight=0.0), linear(share=0.5, weight=1.0, discover_weight=1.0)
    fit(replace(SYSTEM, sources=(silent, right), fusion="learnt"), features(tmp_path / "features"), tmp_path / "out", fast=True)
    learnt = json.loads((tmp_path / "out" / "retrieval.json").read_text())["weights"]
    assert learnt["trending"]["weight"] > 0
    assert learnt["linear"]["weight"] > 0


def test_a_newcomer_is_asked_with_the_vector_of_a_user_without_history_or_features(tmp_path: Path) -> None:
    folder, out = features(tmp_path / "features"), tmp_path / "out"
    fit(replace(SYSTEM, sources=(two_tower(share=0.5, dimensions=8), NOISE), fusion="learnt"), folder, out, fast=True)
    nobody = worlds.states([], ["nobody"])
    nobody = replace(nobody, features=np.full_like(nobody.features, np.nan))
    cut = replace(Cut.load(folder / "cuts" / "2017-01-08"), users=nobody)
    file = out / "towers" / "2017-01-08.pt"
    found = user_vectors(cut, Towers.load(file), out / "cuts" / "2017-01-08" / "sources" / "two_tower")
    np.testing.assert_array_equal(nobodys_vector(file), found[0])
