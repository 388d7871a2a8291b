"""Each test against a slow or known answer, and on columns too small or too odd to test."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from components.monitoring.shifts import category, embedding, nulls, numeric, shifts


def test_a_category_gone_is_improbable_by_the_binomial_and_named():
    then = np.array(["a"] * 95 + ["b"] * 5)
    found = category("c", then, np.array(["a"] * 200))
    assert "'b' is gone: 5.0%" in found.note
    assert found.effect == pytest.approx(0.05)
    assert found.chance == pytest.approx(2 * 2 * binom.pmf(0, 200, 0.045), rel=1e-6)


def test_the_same_categories_in_another_order_are_no_shift():
    then = np.array(["a", "b"] * 50)
    assert (category("c", then, then[::-1]).chance, category("c", then, then[::-1]).effect) == (1.0, 0.0)


def test_nulls_are_counted_exactly():
    assert nulls("x", 0, 1000, 50, 1000).chance < 1e-10
    assert nulls("x", 5, 1000, 5, 1000).chance == 1.0


def test_a_rotation_about_the_mean_is_seen_and_a_second_draw_is_not():
    random = np.random.default_rng(0)
    long = np.array([3.0, 0.3])
    then, again, turned = random.normal(size=(400, 2)) * long, random.normal(size=(400, 2)) * long, random.normal(size=(400, 2)) * long
    turned = turned @ np.array([[0.6, 0.8], [-0.8, 0.6]])
    assert embedding("v", then, turned).chance < 0.001
    assert embedding("v", then, again).chance > 0.01


@pytest.mark.parametrize("values", [[], [1.0], [None, None], [float("nan")] * 3])
def test_columns_of_one_or_no_value_crash_nothing(values):
    then, now = pd.DataFrame({"x": pd.Series(values, dtype="float64")}), pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    for one in shifts(then, now):
        assert 0 <= one.chance <= 1


def test_no_vectors_and_one_vector_crash_nothing():
    assert embedding("v", np.empty((0, 1)), np.ones((5, 1))).chance == 1.0
    assert 0 < embedding("v", np.zeros((3, 2)), np.zeros((4, 2))).chance <= 1


def test_all_columns_are_one_family():
    random = np.random.default_rng(0)
    then, now = (pd.DataFrame(random.normal(size=(300, 10)), columns=[f"n{at}" for at in range(10)]) for _ in range(2))
    found = shifts(then, now)
    smallest = min(found, key=lambda one: one.chance)
    assert smallest.adjusted == pytest.approx(min(1, 10 * smallest.chance))
    assert smallest.chance == numeric(smallest.column, then[smallest.column].to_numpy(), now[smallest.column].to_numpy()).chance
