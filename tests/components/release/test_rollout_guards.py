"""The guards over whole simulated rollouts: bundles as good as the old one are promoted, worse ones withdrawn, each for what it does."""

import numpy as np
import pytest

from components.release.rollout_guards import ALPHA, Answers, Compared, Histogram, breaches, judged, stated
from components.release.sequential import Rate
from tests.components.release.simulated import Behaviour, rolled_out, shop_of, withdrawn_of, worse


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_bundles_as_good_as_the_old_one_are_withdrawn_no_more_often_than_stated(count: int) -> None:
    assert len(withdrawn_of(count, Behaviour())) <= ALPHA * count


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_bundles_that_are_clicked_by_a_fifth_less_are_withdrawn(count: int) -> None:
    reasons = withdrawn_of(count, worse(clicks=0.8))
    assert len(reasons) >= 0.9 * count
    assert sum("clicks" in reason for reason in reasons) >= 0.9 * count


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"errors": 0.05}, "errors"),
        ({"slower": 0.15}, "p95"),
        ({"empty": 0.05}, "empty lists"),
        ({"lower": 0.1}, "lower rungs"),
        ({"scores": 0.9}, "scores"),
    ],
)
def test_what_is_wrong_is_named_and_costs_few_users(changes: dict[str, float], reason: str) -> None:
    for seed in range(5):
        shop = shop_of(seed, worse(**changes))
        rollout, _ = rolled_out(shop)
        assert rollout.phase == "refused"
        assert reason in rollout.reason
        assert shop.answers[rollout.new.digest].asked < 1000  # of 30,000 in the first step's ten minutes


def test_a_better_bundle_is_promoted() -> None:
    assert [rolled_out(shop_of(seed, worse(clicks=1.2, slower=-0.005)))[0].phase for seed in range(5)] == ["done"] * 5


def test_a_quantile_lies_on_straight_lines_between_bounds() -> None:
    told = Histogram((1.0, 2.0, np.inf), (50, 40, 10))
    assert [told.quantile(share) for share in (0.25, 0.5, 0.7, 0.95)] == [0.5, 1.0, 1.5, 2.0]
    assert told.above(1.0) == 50
    assert Histogram().quantile(0.5) == 0.0


def test_nothing_asked_is_nothing_shown() -> None:
    assert breaches(Compared(Answers(), Answers(), None)) == ()


def test_where_nobody_tells_of_clicks_they_are_not_waited_for_and_it_is_said() -> None:
    assert judged(Compared(Answers(), Answers(), None))
    assert "not judged" in stated(None)
    quiet = Rate(500.0, 1000, 0, 0.0)
    assert judged(Compared(Answers(), Answers(), (quiet, quiet)))
    few = Rate(20.0, 30, 5, 4.0)
    assert not judged(Compared(Answers(), Answers(), (few, few)))
    assert "too few users" in stated((few, few))
