"""Who may decide what is shown, without a model: chance, what trends, one's channels, one's categories, and what a platform usually does.

They know what a platform knows: labels, counts, subscriptions, what was watched. Shapes: S pages, K positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.video import words
from components.data.video.live import World
from components.data.video.pages import ANSWER, PageRequests, Slates
from components.data.video.population import Ints

TRIES = 2  # times a policy's slot is drawn again where a video stands twice


@dataclass(frozen=True)
class ByChance:
    """Any videos that may be shown."""

    world: World

    def __call__(self, visits: PageRequests) -> Slates:
        rows = np.flatnonzero(self.world.library.showable[: self.world.there])
        return Slates.of(without_repeats(lambda: self.world.random_of(visits).choice(rows, (len(visits), ANSWER)).astype(np.int32)))


@dataclass(frozen=True)
class TrendingNow:
    """What is most watched now in the user's language, and was not watched by the user."""

    world: World

    def __call__(self, visits: PageRequests) -> Slates:
        world = self.world
        place = np.arange(3 * ANSWER)
        rows = world.best_of_language().pick(world.crowd.language[visits.user][:, None], np.broadcast_to(place, (len(visits), len(place))))
        return Slates.of(_first_new(world, visits, rows))


@dataclass(frozen=True)
class Subscribed:
    """The newest videos of the user's channels, one after another, and where they end, the newest of the language."""

    world: World

    def __call__(self, visits: PageRequests) -> Slates:
        world = self.world
        deep = np.arange(5)
        channels = np.repeat(world.memory.channel[visits.user], len(deep), axis=1)  # (S, 5 B)
        back = np.tile(deep, (len(visits), channels.shape[1] // len(deep)))
        newest = world.newest(world.by_channel, channels, back)
        newest = np.take_along_axis(newest, np.argsort(-newest, axis=1, kind="stable"), 1)
        some = np.broadcast_to(np.arange(2 * ANSWER), (len(visits), 2 * ANSWER))
        rest = world.newest(world.by_language, np.broadcast_to(world.crowd.language[visits.user][:, None], some.shape), some)
        return Slates.of(_first_new(world, visits, np.concatenate([newest, rest], axis=1)))


@dataclass(frozen=True)
class SameCategories:
    """What is most watched in the categories of what the user watched last."""

    world: World

    def __call__(self, visits: PageRequests) -> Slates:
        def slots() -> Ints:
            random = self.world.random_of(visits)
            return _alike(self.world, random, visits, _languages(self.world, random, visits))

        return Slates.of(without_repeats(slots))


@dataclass(frozen=True)
class Usual:
    """What the platform did until now: a mixture of all these, slot by slot. It made the history, and explores on the way."""

    world: World
    shares: tuple[float, ...] = (0.30, 0.30, 0.15, 0.15, 0.10)  # trending, alike, subscribed, fresh, anything of the language

    def __call__(self, visits: PageRequests) -> Slates:
        return Slates.of(without_repeats(lambda: self._slots(visits)))

    def _slots(self, visits: PageRequests) -> Ints:
        world, random = self.world, self.world.random_of(visits)
        shape = (len(visits), ANSWER)
        language = _languages(world, random, visits)
        trending = world.best_of_language().pick(language, (100 * random.random(shape) ** 2).astype(int))
        channels = np.take_along_axis(world.memory.channel[visits.user], random.integers(0, world.memory.channel.shape[1], shape), 1)
        subscribed = world.newest(world.by_channel, channels, (5 * random.random(shape) ** 2).astype(int))
        fresh, old = (world.newest(world.by_language, language, _back(world, random, language, days)) for days in (2.0, 400.0))
        drawn = random.choice(len(self.shares), shape, p=self.shares)
        rows = np.choose(drawn, [trending, _alike(world, random, visits, language), subscribed, fresh, old])
        return np.where(rows < 0, fresh, rows)


def _languages(world: World, random: np.random.Generator, visits: PageRequests) -> Ints:
    """(S, K) the user's own, for some English now and then."""
    own = world.crowd.language[visits.user][:, None]
    other = world.crowd.speaks[visits.user, 0][:, None] & (random.random((len(visits), ANSWER)) < 0.3)
    return np.where(other, 0, own).astype(np.int32)


def _alike(world: World, random: np.random.Generator, visits: PageRequests, language: Ints) -> Ints:
    """(S, K) of the category of one of the last ten watched, more of the much watched; -1 where nothing was watched."""
    known = np.minimum(world.memory.watched[visits.user], 10)[:, None]
    back = (random.random(language.shape) * known).astype(int)
    latest = world.memory.watched[visits.user][:, None] - 1 - back
    row = np.take_along_axis(world.memory.video[visits.user], latest % world.memory.video.shape[1], 1)
    group = np.where(known > 0, language.astype(np.int64) * len(words.TOPICS) + world.library.label[row], -1)
    return world.best_of_label().pick(group, (40 * random.random(language.shape) ** 1.5).astype(int))


def _back(world: World, random: np.random.Generator, language: Ints, days: float) -> NDArray[np.int64]:
    """How far behind the newest of the language: any of those uploaded within the days."""
    within = world.by_language.before(language, world.there) - world.by_language.before(language, world.library.there(world.day - days))
    return (random.random(language.shape) * np.maximum(within, 1)).astype(np.int64)


def without_repeats(slots: Callable[[], Ints]) -> Ints:
    """Draw slots, and again those that hold nothing or what stands above; what is left of such is empty, behind the others."""
    rows = slots()
    for _ in range(TRIES):
        twice = _stands_above(rows) | (rows < 0)
        if not twice.any():
            break
        rows = np.where(twice, slots(), rows)
    rows = np.where(_stands_above(rows), -1, rows)
    return np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), 1)


def _stands_above(rows: Ints) -> NDArray[np.bool_]:
    above = np.tril(np.ones((rows.shape[1],) * 2, bool), -1)
    return ((rows[:, :, None] == rows[:, None, :]) & above).any(axis=2) & (rows >= 0)


def _first_new(world: World, visits: PageRequests, rows: Ints) -> Ints:
    """(S, ANSWER) the first of the rows that are neither watched, nor flagged, nor above already."""
    left_out = (rows < 0) | _stands_above(rows) | world.memory.has_watched(visits.user, rows) | ~world.library.showable[rows]
    order = np.argsort(left_out, axis=1, kind="stable")[:, :ANSWER]
    return np.where(np.take_along_axis(left_out, order, 1), -1, np.take_along_axis(rows, order, 1)).astype(np.int32)
