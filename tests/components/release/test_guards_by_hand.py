"""Each guard of a rollout at the figures where it changes its mind, worked out by hand; whole rollouts are in `test_rollout_guards.py`."""

from dataclasses import replace
from math import inf, log

import numpy as np
import pytest

from components.release.rollout_guards import ALPHA, Answers, Compared, Histogram, breaches, judged, stated
from components.release.sequential import Rate, distance, rate_fell, share_above, smallest_fall

SHOWN = -log(0.005)  # of evidence: one false alarm in 200
BOUNDS = (0.01, 0.02, 0.04, inf)  # seconds
USUAL = Histogram(BOUNDS, (900, 60, 40, 0))  # p95 .0183 s, p99 .035 s
CALM = Answers(asked=1000, lists=1000, seconds=USUAL)


def found(old: Answers, new: Answers) -> tuple[str, ...]:
    return breaches(Compared(old, new))


def fewest_shown(asked: int, allowed: float) -> int:
    """The fewest bad answers that show more than the allowed share."""
    return next(bad for bad in range(asked + 1) if share_above(bad, asked, allowed) >= SHOWN)


def test_the_guards_chances_of_a_false_alarm_are_the_rollouts_together() -> None:
    assert 6 * 0.005 + 0.02 == pytest.approx(ALPHA) == pytest.approx(0.05)


BORNE = [("errors", "errors", "asked", 0.01), ("empty lists", "empty", "lists", 0.005), ("lists of lower rungs", "lower", "lists", 0.02)]


@pytest.mark.parametrize(("what", "bad", "of", "margin"), BORNE)
@pytest.mark.parametrize(("old_bad", "old_asked"), [(0, 1000), (50, 1000), (9, 200), (30, 199), (0, 0)])
def test_more_bad_answers_than_the_old_bundles_share_and_a_margin_are_named_from_the_first_that_shows_it(
    what: str, bad: str, of: str, margin: float, old_bad: int, old_asked: int
) -> None:
    """From 200 answers on the old share is taken one bad answer worse than it was."""
    allowed = margin + ((old_bad + 1) / (old_asked + 1) if old_asked >= 200 else old_bad / max(old_asked, 1))
    least = fewest_shown(500, allowed)
    old, new = replace(CALM, **{bad: old_bad, of: old_asked}), replace(CALM, **{of: 500})
    assert found(old, replace(new, **{bad: least - 1})) == ()
    expected = f"{what}: {least} of 500 ({least / 500:.1%}) against {old_bad} of {old_asked}; {allowed:.1%} are borne"
    assert found(old, replace(new, **{bad: least})) == (expected,)


def test_where_all_of_the_old_bundles_answers_are_bad_no_more_can_be() -> None:
    assert found(replace(CALM, errors=1000), replace(CALM, errors=1000)) == ()
    assert found(replace(CALM, asked=100, errors=99), replace(CALM, asked=500, errors=500)) == ()  # .99 and a hundredth: all are borne


# The old p95 lies at .01 + .01 x 50 / 60 = .0183 s; 1.25 times that is .0229, so slow is over .04 s: none of the old, .05 + .03 are borne.
# The old p99 lies at .02 + .02 x 30 / 40 = .035 s; 1.25 times that is .0437, beyond the last finite bound: nothing is told apart.
def test_a_slow_tail_is_named_from_the_first_answer_that_shows_it() -> None:
    least = fewest_shown(1000, 0.08)

    def slow(count: int) -> Answers:
        return replace(CALM, seconds=Histogram(BOUNDS, (1000 - count, 0, 0, count)))

    assert found(CALM, slow(least - 1)) == ()
    assert found(CALM, slow(least)) == (f"p95: {least} of 1000 answers took over 40 ms (18.3 ms for the old bundle)",)


def test_the_slowest_hundredth_is_held_against_the_old_bundles() -> None:
    """The old p99 lies at 2.5 + 2.5 x 5 / 10 = 3.75 ms, 1.25 times that is 4.7: slow is over 5 ms, and .01 + .01 are borne."""
    bounds = (0.0025, 0.005, inf)
    old, least = replace(CALM, seconds=Histogram(bounds, (985, 10, 5))), fewest_shown(1000, 0.02)

    def slow(count: int) -> Answers:
        return replace(CALM, seconds=Histogram(bounds, (1000 - count, 0, count)))

    assert found(old, slow(least - 1)) == ()
    assert found(old, slow(least)) == (f"p99: {least} of 1000 answers took over 5 ms (3.8 ms for the old bundle)",)
    beyond = replace(CALM, seconds=Histogram(bounds, (940, 0, 60)))  # both quantiles lie beyond what is told apart
    assert found(beyond, slow(1000)) == ()


def test_nobody_is_called_slow_beside_too_few_or_beside_other_bounds() -> None:
    slow = replace(CALM, seconds=Histogram(BOUNDS, (0, 0, 0, 1000)))
    few = Histogram(BOUNDS, (180, 12, 7, 0))
    assert few.total == 199
    assert found(replace(CALM, seconds=few), slow) == ()
    assert len(found(replace(CALM, seconds=Histogram(BOUNDS, (180, 12, 8, 0))), slow)) == 1
    assert found(CALM, replace(CALM, seconds=Histogram((0.01, 0.02, 0.05, inf), (0, 0, 0, 1000)))) == ()
    assert found(CALM, replace(CALM, seconds=Histogram(BOUNDS, (0, 0, 0, 0)))) == ()


def test_scores_that_lie_elsewhere_are_named_from_two_fifths_on() -> None:
    bounds = (0.0, inf)
    old = replace(CALM, scores=Histogram(bounds, (1000, 0)))
    apart = [distance(np.array([1000, 0]), np.array([1000 - moved, moved]), 0.005) for moved in range(1001)]
    least = next(moved for moved, one in enumerate(apart) if one > 0.4)

    def moved(count: int) -> Answers:
        return replace(CALM, scores=Histogram(bounds, (1000 - count, count)))

    assert found(old, moved(least - 1)) == ()
    assert found(old, moved(least)) == ("scores: at least 40% of the first items' lie elsewhere",)
    assert found(old, replace(CALM, scores=Histogram((1.0, inf), (0, 1000)))) == ()
    assert found(CALM, CALM) == ()


def rate(clicked: int, lists: int = 20_000, users: float = 5000.0) -> Rate:
    return Rate(users, lists, clicked, clicked * 1.5)


def test_fewer_clicks_are_named_from_the_first_that_shows_it() -> None:
    old = rate(4000)
    least = next(fewer for fewer in range(2000) if rate_fell(old, rate(4000 - fewer), 0.2) >= -log(0.02))

    def sentences(fewer: int) -> tuple[str, ...]:
        return breaches(Compared(CALM, CALM, (old, rate(4000 - fewer))))

    assert sentences(least - 1) == ()
    assert sentences(least) == (f"clicks: {4000 - least} of 20000 lists ({(4000 - least) / 20_000:.2%}) against 4000 of 20000 (20.00%)",)


@pytest.mark.parametrize("clicked", [40, 400, 4000])
def test_clicks_are_judged_once_a_fall_by_a_fifth_would_have_been_found(clicked: int) -> None:
    pair = (rate(clicked), rate(clicked))
    seen = Compared(CALM, CALM, pair)
    smallest = smallest_fall(*pair, 0.2, 0.02)
    assert judged(seen) == (smallest <= 0.2) == (clicked > 400)
    assert stated(pair).endswith(f"; a fall by {smallest:.0%} would be found by now")
    assert stated(pair).startswith(f"clicks {clicked / 20_000:.2%} of 20000 lists against {clicked / 20_000:.2%} of 20000; ")


def test_before_the_first_answer_nothing_was_counted() -> None:
    assert Answers() == Answers(0, 0, 0, 0, 0, Histogram((), ()), Histogram((), ()))


def test_where_nobody_clicks_it_takes_two_hundred_lists_to_know() -> None:
    assert judged(Compared(CALM, CALM, (Rate(200.0, 200, 0, 0.0), rate(9))))
    assert not judged(Compared(CALM, CALM, (Rate(199.0, 199, 0, 0.0), rate(9))))
    assert not judged(Compared(CALM, CALM, (Rate(300.0, 300, 1, 1.0), Rate(0.0, 0, 0, 0.0))))


def test_a_quantile_of_the_first_bounds_begins_at_nothing() -> None:
    told = Histogram((2.0, 4.0, inf), (0, 10, 10))
    assert [told.quantile(share) for share in (0.0, 0.25, 0.5, 0.51, 1.0)] == [2.0, 3.0, 4.0, 4.0, 4.0]
    assert [told.above(bound) for bound in (1.0, 2.0, 4.0, inf)] == [20, 20, 10, 0]
    assert told.total == 20


def test_each_sentence_has_its_place() -> None:
    bad = Answers(1000, 900, 1000, 900, 900, Histogram(BOUNDS, (0, 0, 0, 1000)), Histogram((0.0, inf), (0, 1000)))
    old = replace(CALM, seconds=Histogram(BOUNDS, (1000, 0, 0, 0)), scores=Histogram((0.0, inf), (1000, 0)))
    said = breaches(Compared(old, bad, (rate(4000), rate(400))))
    assert [sentence.split(":")[0] for sentence in said] == [
        "errors",
        "empty lists",
        "lists of lower rungs",
        "p95",
        "p99",
        "scores",
        "clicks",
    ]
