"""How a list is met: the expectation is the mean of what happens, and depends on position, repetition and memory as it says."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.data.video.oracle import best_places
from components.data.video.pages import Slates
from components.data.video_world import ByChance, Oracle, SameCategories, Size, Subscribed, TrendingNow, Usual, World

TINY = Size(users=400, channels=60, videos=900, days=8, ahead_days=2)


@pytest.fixture(scope="module")
def world() -> World:
    """Four days old, so that users remember something."""
    world = World(TINY, seed=2)
    world.live_until(4, Usual(world), hours=8)
    return world


def test_the_expectation_is_the_mean_of_what_happens(world: World) -> None:
    """Of 4000 draws of five users' pages, in every place and over all places."""
    visits = world.visits()[:5]
    rows = ByChance(world)(visits).rows
    rows[:, 3] = -1  # an empty place
    rows[:, 6] = rows[:, 5]  # a channel again
    expected = world.expected(visits, rows)
    times, random = 4000, np.random.default_rng(0)
    many = visits[np.repeat(np.arange(5), times)]
    luck = random.random((7, 5 * times, rows.shape[1]), dtype=np.float32)
    happened = world.behaviour.draw(random, luck, many, np.repeat(rows, times, axis=0), world.memory)
    one = np.ones((1, 1))
    for drawn, mean, most in (
        (happened.shown, expected.impressions, one),
        (happened.clicked, expected.clicks, one),
        (happened.watched, expected.watch_seconds, world.library.seconds[rows]),
        (happened.goes_on, expected.goes_on[:, None], one),
    ):
        found = drawn.reshape(5, times, -1).astype(float).mean(axis=1)
        error = np.sqrt(mean * most / times)  # no variance of what lies in [0, most] is above mean * most
        assert (np.abs(found - mean) < 5 * error + 5 * most / times).all()  # the last for what happens but a few times
        assert np.abs(found - mean).sum() < 1.5 * error.sum()
    assert not happened.clicked[:, 3].any()


def test_what_stands_lower_is_reached_less(world: World) -> None:
    visits = world.visits()
    expected = world.expected(visits, TrendingNow(world)(visits).rows)
    assert (np.diff(expected.looked, axis=1) <= 0).all()
    assert (expected.impressions >= expected.looked - 1e-6).all()
    screen = np.where(visits.device == 0)[0][0]  # a telephone shows three at once
    assert expected.impressions[screen, 0] == expected.impressions[screen, 2] == 1
    assert expected.impressions[screen, 3] == pytest.approx(expected.looked[screen, 3])


def test_a_channel_tires_and_a_watched_video_is_left(world: World) -> None:
    visits = world.visits()[:40]
    channel = np.argmax(np.bincount(world.library.channel[: world.there]))
    same = np.flatnonzero(world.library.channel[: world.there] == channel)[:2].astype(np.int32)
    rows = np.tile(same, (40, 1))
    page, alone = world.behaviour.chances(visits, rows, world.memory), world.behaviour.chances(visits, rows[:, 1:], world.memory)
    assert (page.click[:, 1] < alone.click[:, 0]).all()
    later = world.fork()
    later.memory.note(visits.user, rows[:, 0], visits.day)
    again = world.behaviour.chances(visits, rows, later.memory)
    assert (again.click[:, 0] < 0.5 * page.click[:, 0] + 1e-6).all()
    assert (again.click[:, 1] < page.click[:, 1] + 1e-9).all()


def test_a_subscription_draws(world: World) -> None:
    visits = world.visits()[:40]
    row = np.zeros((40, 1), np.int32)
    channel = world.library.channel[row[:, 0]]
    later = world.fork()
    new = ~(world.memory.channel[visits.user] == channel[:, None]).any(axis=1)
    later.memory.subscribe(visits.user, channel)
    before, after = (world.behaviour.chances(visits, row, state.memory).click[:, 0] for state in (world, later))
    assert (after[new] > before[new]).all()
    assert np.array_equal(after[~new], before[~new])


def test_the_oracle_beats_every_other_policy(world: World) -> None:
    """For nearly every single page, and by far on average; what it shows may be shown and is new."""
    visits = world.visits()
    best = Oracle(world)(visits).rows
    gained = world.expected(visits, best).watch_a_page
    for policy in (ByChance, TrendingNow, Subscribed, SameCategories, Usual):
        other = world.expected(visits, policy(world)(visits).rows).watch_a_page
        assert (gained >= other).all(), policy.__name__
        assert gained.mean() > 1.3 * other.mean()
    assert world.library.showable[best].all()
    assert not world.memory.has_watched(visits.user, best).any()
    assert all(len(set(row)) == 20 for row in best.tolist())


def test_no_change_of_one_or_two_videos_betters_the_oracle_by_much(world: World) -> None:
    """A thousand swaps and replacements a page: what is left to gain, where a channel stands there thrice, is below one per cent."""
    visits, random = world.visits()[:6], np.random.default_rng(1)
    best = Oracle(world)(visits).rows
    value = world.expected(visits, best).watch_a_page
    there = np.flatnonzero(world.library.showable[: world.there]).astype(np.int32)
    for s in range(len(visits)):
        tried = np.repeat(best[s : s + 1], 1000, axis=0)
        at = random.integers(0, 20, (1000, 2))
        every = np.arange(1000)
        tried[every[:500], at[:500, 0]], tried[every[:500], at[:500, 1]] = tried[every[:500], at[:500, 1]], tried[every[:500], at[:500, 0]]
        tried[500:][every[:500], at[500:, 0]] = random.choice(there, 500)
        allowed = np.array([len(set(row)) == 20 for row in tried.tolist()])
        one = visits[np.full(int(allowed.sum()), s)]
        assert world.expected(one, tried[allowed]).watch_a_page.max() <= 1.01 * value[s]


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (2, 6), elements=st.floats(0.05, 1)),
    arrays(np.float64, (2, 6), elements=st.floats(0.05, 0.95)),
)
def test_the_best_places_are_those_of_trying_everything(gain: np.ndarray, on: np.ndarray) -> None:
    """Three of six in every order: 120 lists a page."""
    order = np.argsort(-gain / (1 - on), axis=1, kind="stable")
    gain, on = np.take_along_axis(gain, order, 1), np.take_along_axis(on, order, 1)

    def value(page: int, places: tuple[int, ...]) -> float:
        reached, total = 1.0, 0.0
        for place in places:
            total += reached * gain[page, place]
            reached *= on[page, place]
        return total

    chosen = best_places(gain, on, 3)
    for page in range(2):
        assert value(page, tuple(chosen[page])) == pytest.approx(max(value(page, some) for some in permutations(range(6), 3)), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_list_has_an_expectation_within_its_bounds(world: World, data: st.DataObject) -> None:
    visits = world.visits()[:3]
    rows = data.draw(arrays(np.int32, (len(visits), 20), elements=st.integers(-1, len(world.library) - 1)))
    page = world.expected(visits, rows)
    nothing = rows < 0
    for part in (page.looked, page.impressions, page.clicks, page.satisfied):
        assert ((part >= 0) & (part <= 1 + 1e-6)).all()
        assert (part[nothing] == 0).all()
    assert (page.clicks <= page.looked + 1e-6).all()
    assert (page.satisfied <= page.clicks + 1e-6).all()
    assert (page.watch_seconds <= page.clicks * world.library.seconds[rows] + 1e-3).all()
    assert ((page.goes_on >= 0) & (page.goes_on <= 1)).all()


def test_no_page_at_all_ends_the_visit(world: World) -> None:
    step = world.fork().step(lambda visits: Slates.of(np.full((len(visits), 20), -1)))
    assert step.impressions.sum() == 0
    assert max(page.number for page in step.pages if len(page.session)) == 1
