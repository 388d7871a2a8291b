"""What other weights would bring: the numbers are the world's, the weights reach the score, and who has no truth is told so."""

from pathlib import Path

import numpy as np
import pytest

from components.data.video.live import Size
from components.data.video_world import ByChance, Oracle, World
from pipelines.frontier import (
    OWN,
    BadWeights,
    Brought,
    NoTruth,
    brought,
    diversity,
    front,
    read_weights,
    save,
    table,
    weighing,
    weightings,
    world_of,
)
from serving.objectives import Objective
from serving.query import Request
from serving.recommender import Recommender
from serving.system import load_system
from tests.serving.tiny_bundle import load_tiny, states, system, write_tiny

HEADS = {"watch": Objective("watch", 0.5), "click": Objective("click", 0.2)}


def made(name: str, watch: float, spread: float) -> Brought:
    return Brought(name, {"watch": 1.0}, (watch, 0.1), (1.0, 0.1), (0.5, 0.1), (spread, 0.01))


def test_each_head_is_tried_alone_twice_and_not_at_all() -> None:
    found = weightings(HEADS)
    assert found[OWN] == {"watch": 0.5, "click": 0.2}
    assert found["watch alone"] == {"watch": 1.0, "click": 0.0}
    assert found["click twice"] == {"watch": 0.5, "click": 0.4}
    assert found["without watch"] == {"watch": 0.0, "click": 0.2}
    assert "without watch" not in weightings({"watch": HEADS["watch"]})  # nothing would be left


def test_weights_are_read_and_refused_by_name() -> None:
    assert read_weights("click=0.25, watch=1", HEADS) == {"watch": 1.0, "click": 0.25}
    for wrong in ("clicks=1", "click", "click=-1", "click=nan", "watch=0"):
        with pytest.raises(BadWeights, match=r"HEAD=NUMBER|weight above 0"):
            read_weights(wrong, HEADS)


def test_a_page_is_as_diverse_as_its_pairs_differ() -> None:
    """Of four videos two of one kind: 5 of 6 pairs differ; three and a gap: those three, two alike: 2 of 3; one alone has no pair."""
    rows = np.array([[0, 1, 2, 3], [0, 1, 2, -1], [3, -1, -1, -1]])
    assert diversity(np.array([7, 7, 8, 9]), rows) == pytest.approx([5 / 6, 2 / 3, 0])


def test_the_world_says_what_a_page_brings() -> None:
    world = World(Size(users=60, channels=10, videos=200, days=3, ahead_days=1), seed=0)
    visits = world.visits(12.0)
    best, chance = (brought(world, visits, policy(world), name, {}) for name, policy in (("best", Oracle), ("chance", ByChance)))
    page = world.expected(visits, Oracle(world)(visits).rows)
    assert best.watch_minutes[0] == pytest.approx(float(page.watch_seconds.sum(axis=1).mean()) / 60)
    assert best.watch_minutes[0] > chance.watch_minutes[0]
    assert best.clicks[0] == pytest.approx(float(page.clicks.sum(axis=1).mean()))


def test_the_frontier_is_what_none_beats_in_both() -> None:
    found = [made("own", 9, 0.5), made("worse", 8, 0.4), made("wide", 6, 0.9), made("long", 10, 0.3)]
    assert [one.name for one in front(found)] == ["long", "own", "wide"]


def test_table_plot_and_numbers_are_of_every_weighting(tmp_path: Path) -> None:
    from rich.console import Console

    found = [made(OWN, 9, 0.5), made("worse", 8, 0.4)]
    console = Console(width=160, record=True)
    console.print(table(found))
    text = console.export_text()
    assert f"{OWN} *" in text
    assert "9.00 ± 0.10" in text
    save(found, tmp_path / "deep" / "video.png")
    assert (tmp_path / "deep" / "video.png").read_bytes().startswith(b"\x89PNG")
    assert '"worse"' in (tmp_path / "deep" / "video.json").read_text()


def test_other_weights_reach_the_score_and_the_systems_own_change_nothing(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    recommender, told = Recommender(load_tiny(tmp_path), system()), system()
    heads = list(told.objectives)
    own = weighing(recommender, told.objectives, {name: one.weight for name, one in told.objectives.items()})
    other = weighing(recommender, told.objectives, {name: float(name == heads[0]) for name in heads})
    table_of_users = states()
    state = table_of_users[0]
    request = Request(state.user_id, 5, recommender.catalogue.cut_day)
    assert own.recommend(request, state).items == recommender.recommend(request, state).items
    assert other.scoring.heads.weights.tolist() == [float(name == heads[0]) for name in heads]
    assert recommender.scoring.heads.weights.tolist() != other.scoring.heads.weights.tolist()


def test_a_system_whose_data_only_happened_has_no_frontier() -> None:
    with pytest.raises(NoTruth, match=r"nothing says what another list of shop would have brought"):
        world_of(load_system("shop"))
