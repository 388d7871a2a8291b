"""What a difference shows is what a slow simulation and a table of known answers say."""

import math

import numpy as np
import pytest

from components.evaluation.evidence import ALPHA, MARGIN, Difference, holm


def difference(value, error=0.01, users=1000, rival=0.4):
    return Difference(value, error, users, rival)


def test_holm_of_a_family_worked_by_hand():
    # sorted .01 .02 .04: 3 x .01, 2 x .02, 1 x .04, each at least the one before
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_nothing_is_shown_by_one_user():
    alone = difference(0.5, math.inf, users=1)
    assert (alone.chance_above(0.0), alone.chance_below(1.0), alone.smallest_seen()) == (1.0, 1.0, math.inf)


def test_the_same_lists_are_not_worse_and_no_error_is_no_division():
    same = difference(0.0, error=0.0)
    assert same.chance_above(-same.margin) == 0.0
    assert same.chance_below(-same.margin) == 1.0


def test_an_unsure_difference_shows_neither_harm_nor_harmlessness():
    unsure = difference(-0.01, error=0.05)
    assert unsure.margin == pytest.approx(MARGIN * 0.4)
    assert unsure.chance_above(-unsure.margin) > ALPHA
    assert unsure.chance_below(-unsure.margin) > ALPHA


def test_the_smallest_effect_is_seen_with_the_stated_power():
    random, users, spread = np.random.default_rng(0), 60, 0.3
    effect = difference(0.0, spread / math.sqrt(users), users).smallest_seen()
    samples = random.normal(effect, spread, (4000, users))
    seen = [difference(row.mean(), row.std(ddof=1) / math.sqrt(users), users).chance_above(0.0) < ALPHA for row in samples]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.03)
