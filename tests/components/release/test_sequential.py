"""What the tests that may be looked at any time promise: few false alarms however often one looks, and harm is found."""

from math import exp, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from components.release.sequential import Rate, band, distance, rate_fell, share_above, smallest_fall


@given(asked=st.integers(0, 60), bad=st.integers(0, 60), allowed=st.floats(0.01, 0.9))
def test_evidence_of_a_share_is_the_likelihood_ratio_mixed_by_hand(asked: int, bad: int, allowed: float) -> None:
    bad = min(bad, asked)

    def ratio(share: float) -> float:
        return (share / allowed) ** bad * ((1 - share) / (1 - allowed)) ** (asked - bad) / (1 - allowed)

    by_hand = quad(ratio, allowed, 1.0, epsabs=0, epsrel=1e-9)[0]
    assert exp(share_above(bad, asked, allowed)) == pytest.approx(by_hand, rel=1e-6)


def test_evidence_of_a_share_is_one_on_average_where_the_share_is_just_allowed() -> None:
    from scipy.stats import binom

    asked, allowed = 40, 0.1
    assert sum(binom.pmf(bad, asked, allowed) * exp(share_above(bad, asked, allowed)) for bad in range(asked + 1)) == pytest.approx(1.0)


@pytest.mark.parametrize("allowed", [0.0, 1.0])
def test_a_share_that_allows_nothing_or_everything_is_refused(allowed: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        share_above(1, 2, allowed)


def test_looking_after_every_answer_raises_few_false_alarms_and_finds_harm() -> None:
    random = np.random.default_rng(0)
    alarms = {0.02: 0, 0.08: 0}
    for share in alarms:
        for bad in np.cumsum(random.random((200, 400)) < share, axis=1):
            alarms[share] += any(share_above(int(bad[at]), at + 1, 0.02) >= log(20) for at in range(0, 400, 5))
    assert alarms[0.02] <= 10  # one in twenty
    assert alarms[0.08] >= 180


def test_an_outage_of_the_new_bundle_is_found_in_a_handful_of_answers() -> None:
    assert share_above(4, 4, 0.02) > log(200) > share_above(1, 1, 0.02)


def users(count: int, rate: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    lists = random.poisson(3, count)
    return np.stack([lists, random.binomial(lists, random.beta(4 * rate, 4 * (1 - rate), count))], axis=1).astype(np.float64)


def test_the_error_of_a_rate_is_of_users_and_not_of_lists() -> None:
    """By bootstrap over users."""
    told = users(2000, 0.2, 1)
    random = np.random.default_rng(2)
    drawn = [Rate.of(told[random.integers(0, len(told), len(told))]).value for _ in range(400)]
    rate = Rate.of(told)
    assert rate.value == pytest.approx(told[:, 1].sum() / told[:, 0].sum())
    assert rate.variance**0.5 == pytest.approx(np.std(drawn), rel=0.1)
    assert rate.variance > 1.3 * rate.value * (1 - rate.value) / rate.lists  # what independent lists would have


def test_evidence_of_a_fall_is_the_normal_likelihood_mixed_by_hand() -> None:
    before, after = Rate.of(users(900, 0.2, 3)), Rate.of(users(900, 0.16, 4))
    fall, variance, scale = before.value - after.value, before.variance + after.variance, 0.2 * before.value
    by_hand = quad(
        lambda at: norm.pdf(fall, at, variance**0.5) / norm.pdf(fall, 0, variance**0.5) * 2 * norm.pdf(at, 0, scale), 0, 10 * scale
    )
    assert exp(rate_fell(before, after, 0.2)) == pytest.approx(by_hand[0], rel=1e-6)


def test_a_rise_is_no_evidence_of_a_fall() -> None:
    assert rate_fell(Rate.of(users(3000, 0.2, 5)), Rate.of(users(3000, 0.25, 6)), 0.2) < 0


def test_few_users_or_none_are_no_evidence() -> None:
    nobody, some, many = (Rate.of(users(count, 0.2, 7)) for count in (0, 150, 3000))
    assert nobody.value == 0.0
    for few in (nobody, some):
        assert rate_fell(many, few, 0.2) == rate_fell(few, many, 0.2) == -inf
        assert smallest_fall(many, few, 0.2, 0.02) == inf


def test_the_smallest_fall_that_would_be_found_is_found_nine_times_in_ten() -> None:
    before, after = Rate.of(users(4000, 0.2, 8)), Rate.of(users(4000, 0.2, 9))
    least = smallest_fall(before, after, 0.2, 0.02)
    assert 0.02 < least < 0.5
    random, found = np.random.default_rng(10), 0
    for _ in range(400):
        fall = random.normal(least * before.value, (before.variance + after.variance) ** 0.5)
        lists = 10**6
        clicked = round((before.value - fall) * lists)
        moved = Rate(after.users, lists, clicked, after.squares / after.lists**2 * lists**2)
        found += rate_fell(before, moved, 0.2) >= -log(0.02)
    assert found == pytest.approx(360, abs=30)


def test_the_band_holds_at_every_look() -> None:
    random = np.random.default_rng(11)
    out = 0
    for values in random.random((100, 3000)):
        looks = [np.sort(values[:count]) for count in (10, 30, 100, 300, 1000, 3000)]
        apart = [np.abs(np.arange(1, len(one) + 1) / len(one) - one).max() - band(len(one), 0.05) for one in looks]
        out += max(apart) > 0
    assert out <= 5
    assert band(0, 0.05) == inf


def test_two_histograms_are_apart_by_what_their_functions_are_less_the_bands() -> None:
    low, high = np.array([5000, 0, 0]), np.array([1000, 0, 4000])
    assert 0.6 < distance(low, high, 0.05) < 0.8
    assert distance(low, low, 0.05) < 0
    assert distance(np.zeros(3), high, 0.05) == -inf
