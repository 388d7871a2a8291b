"""The world through time: who comes, what a policy shows them, what they do, and what the platform may see of it.

Shapes: U users, S visits, K positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.data.video import words
from components.data.video.behaviour import Behaviour
from components.data.video.catalogue import make_library
from components.data.video.memory import Memory
from components.data.video.pages import ANSWER, Expectation, Happened, PageRequests, Slates
from components.data.video.population import Floats, Ints, make_crowd
from components.data.video.shelves import Counts, VideoShelf, by_label

MOST_PAGES = 4  # of one visit
SEARCHES = 0.12  # share of visits that begin with a search
HABIT_HOURS = 3.5  # spread around a user's hour of the day
_CROWD, _LIBRARY, _FIRST, _COME, _MEET, _SHOW = range(6)  # streams of chance


@dataclass(frozen=True)
class Size:
    """How large a world is."""

    users: int
    channels: int
    videos: int  # uploaded until the history's end
    days: int  # of history
    ahead_days: int = 14  # of uploads after it, at the same pace


SMALL = Size(users=2_000, channels=250, videos=5_000, days=28)
DEFAULT = Size(users=50_000, channels=4_000, videos=100_000, days=28)
LARGE = Size(users=200_000, channels=30_000, videos=1_000_000, days=14)


@dataclass(frozen=True)
class ShownPage:
    """One page of some of the visits."""

    number: int  # 0: what was searched for, then 1, 2, ...
    session: NDArray[np.int64]  # (S,) numbers, unique in a world
    visits: PageRequests
    slates: Slates
    happened: Happened


@dataclass(frozen=True)
class Step:
    """What came of some hours: the pages, and each visit's sums."""

    pages: list[ShownPage]
    user: Ints  # (S,) of each visit
    watch_seconds: Floats  # (S,)
    clicks: Ints  # (S,)
    impressions: Ints  # (S,) on home pages
    home_clicks: Ints  # (S,) on home pages
    seconds: Floats  # (S,) how long the visit was


class SlatePolicy(Protocol):
    """Given pages that are asked for, what each shows."""

    def __call__(self, visits: PageRequests) -> Slates: ...


class World:
    """A platform from its first day on. The same size and seed, the same bytes, whatever is asked of it in between."""

    def __init__(self, size: Size = SMALL, seed: int = 0, jump_day: float = np.inf) -> None:
        self.size, self.seed, self.day, self.steps, self.sessions, self._asked = size, seed, 0.0, 0, 0, 0
        self.crowd = make_crowd(self._random(_CROWD), size.users, size.days + size.ahead_days)
        self.library = make_library(self._random(_LIBRARY), size.channels, size.videos, size.days, size.ahead_days)
        self.behaviour = Behaviour(self.crowd, self.library, jump_day)
        self.memory = Memory.at_first(self._random(_FIRST), self.crowd, self.library)
        self.counts = Counts.at_first(self._random(_FIRST, 1), self.library)
        self._best: tuple[VideoShelf, VideoShelf] | None = None

    def fork(self) -> "World":
        """The same world at this moment, to go another way."""
        other = object.__new__(World)
        other.__dict__.update(self.__dict__, memory=self.memory.copy(), counts=self.counts.copy())
        return other

    @property
    def there(self) -> int:
        """How many videos are uploaded."""
        return self.library.there(self.day)

    @cached_property
    def by_channel(self) -> VideoShelf:
        return self._in_time(self.library.channel, self.size.channels)

    @cached_property
    def by_language(self) -> VideoShelf:
        return self._in_time(self.library.language, len(words.LANGUAGES))

    def newest(self, shelf: VideoShelf, group: NDArray[np.integer], back: NDArray[np.integer]) -> Ints:
        """The video so far behind the newest of each group that is uploaded; -1: none."""
        return shelf.pick(group, shelf.before(group, self.there) - 1 - back)

    def best_of_language(self) -> VideoShelf:
        """Rows that may be shown, most watched lately first, by language; as of the step's begin."""
        return self._best_first()[0]

    def best_of_label(self) -> VideoShelf:
        """The same by language and public category (`shelves.by_label`)."""
        return self._best_first()[1]

    def _best_first(self) -> tuple[VideoShelf, VideoShelf]:
        if self._best is None:
            rows, languages = self.counts.best_first(self.library, self.there), len(words.LANGUAGES)
            label = by_label(self.library)
            self._best = VideoShelf.of(self.library.language, rows, languages), VideoShelf.of(label, rows, languages * len(words.TOPICS))
        return self._best

    def random_of(self, visits: PageRequests) -> np.random.Generator:
        """Chance for whoever answers these visits: another stream each time it is asked for within a step."""
        self._asked += 1
        return self._random(_SHOW, self.steps, self._asked)

    def expected(self, visits: PageRequests, rows: Ints) -> Expectation:
        """What showing those rows would bring, exactly, given all that happened until now. (S, K), -1: nothing there."""
        return self.behaviour.expected(visits, rows, self.memory)

    def visits(self, hours: float = 4.0) -> PageRequests:
        """Who comes in the next hours, each user at most once, by habit."""
        random, users = self._random(_COME, self.steps), len(self.crowd)
        middle = (self.day * 24 + hours / 2) % 24
        away = np.abs((self.crowd.peak_hour - middle + 12) % 24 - 12) / HABIT_HOURS
        density = 0.25 / 24 + 0.75 * np.exp(-(away**2) / 2) / (HABIT_HOURS * np.sqrt(2 * np.pi))
        comes = random.random(users) < 1 - np.exp(-self.crowd.visits_a_day * density * hours)
        user = np.flatnonzero(comes & (self.crowd.joined_day <= self.day)).astype(np.int32)
        day = self.day + np.sort(random.uniform(0, hours / 24, len(user)))
        user = random.permutation(user)
        device = _chosen(random, self.crowd.device_shares[user])
        network = _chosen(random, np.array(words.NETWORKS_OF_DEVICE, np.float32)[device])
        return PageRequests(user, day, device, network)

    def step(
        self, policy: SlatePolicy, hours: float = 4.0, heard: Callable[[ShownPage], None] | None = None, visits: PageRequests | None = None
    ) -> Step:
        """Let `hours` pass: users come (or those of `visits`), `policy` says what each page shows, and what they do is remembered.

        `heard` is told what each page brought before the next is asked for.
        """
        self._asked, self._best = 0, None
        visits = self.visits(hours) if visits is None else visits
        session, now = self.sessions + np.arange(len(visits)), visits.day.copy()
        self.sessions += len(visits)
        going, pages = np.arange(len(visits)), []
        for number in range(MOST_PAGES + 1):
            some = replace(visits[going], day=now[going])
            if number == 0:
                searching = self._random(_MEET, self.steps).random(len(visits)) < SEARCHES
                page = self._searched(session[searching], some[searching])
                now[searching] += page.happened.seconds / 86_400
            else:
                page = self._met(number, session[going], some, policy(some), going, len(visits))
                now[going] += page.happened.seconds / 86_400
                going = going[page.happened.goes_on]
            pages.append(page)
            self._remember(page)
            if heard is not None and len(page.session):
                heard(page)
        self.day, self.steps = self.day + hours / 24, self.steps + 1
        return _summed(pages, visits, session, now)

    def _searched(self, session: NDArray[np.int64], visits: PageRequests) -> ShownPage:
        """Some look for a topic they like, and watch one of its most watched videos."""
        random = self._random(_MEET, self.steps, 0)
        taste = self.crowd.taste(visits.user, visits.day, self.behaviour.jump_day)
        topic = np.argmax(1.5 * taste + random.gumbel(size=taste.shape), axis=1)
        group = self.crowd.language[visits.user].astype(np.int64) * len(words.TOPICS) + topic
        rows = self.best_of_label().pick(group, random.integers(0, 20, len(visits)))[:, None]
        luck = random.random((7, len(visits), 1), dtype=np.float32)
        happened = self.behaviour.draw(random, luck, visits, rows, self.memory, asked=True)
        return ShownPage(0, session, visits, Slates(rows), happened)

    def _met(
        self, number: int, session: NDArray[np.int64], visits: PageRequests, slates: Slates, going: NDArray[np.int64], every: int
    ) -> ShownPage:
        """A home page; the luck of each visit is the same whoever made the lists."""
        random = self._random(_MEET, self.steps, number)
        luck = random.random((7, every, ANSWER), dtype=np.float32)[:, going, : slates.rows.shape[1]]
        return ShownPage(number, session, visits, slates, self.behaviour.draw(random, luck, visits, slates.rows, self.memory))

    def _remember(self, page: ShownPage) -> None:
        rows, happened = page.slates.rows, page.happened
        for k in range(rows.shape[1]):
            some = np.flatnonzero(happened.clicked[:, k])
            self.memory.note(page.visits.user[some], rows[some, k], page.visits.day[some])
            some = np.flatnonzero(happened.subscribed[:, k])
            self.memory.subscribe(page.visits.user[some], self.library.channel[rows[some, k]])
        if len(rows):
            self.counts.note(rows[happened.clicked], float(page.visits.day.mean()))

    def live_until(self, day: float, policy: SlatePolicy, hours: float = 4.0) -> list[Step]:
        """Steps under one policy until that day."""
        steps = []
        while self.day < day - 1e-9:
            steps.append(self.step(policy, hours))
        return steps

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=stream))

    def _in_time(self, group: Ints, groups: int) -> VideoShelf:
        return VideoShelf.of(group, np.flatnonzero(self.library.showable), groups)


def _chosen(random: np.random.Generator, shares: Floats) -> Ints:
    """(S,) one of each row's columns."""
    return np.minimum((random.random((len(shares), 1)) > np.cumsum(shares, axis=1)).sum(axis=1), shares.shape[1] - 1).astype(np.int32)


def _summed(pages: list[ShownPage], visits: PageRequests, session: NDArray[np.int64], now: NDArray[np.float64]) -> Step:
    sums = {name: np.zeros(len(visits)) for name in ("watch", "clicks", "impressions", "home")}
    for page in pages:
        at = page.session - session[0] if len(session) else page.session
        clicked = page.happened.clicked.sum(axis=1)
        sums["watch"][at] += page.happened.watched.sum(axis=1)
        sums["clicks"][at] += clicked
        if page.number:
            sums["impressions"][at] += page.happened.shown.sum(axis=1)
            sums["home"][at] += clicked
    counts = {name: values.astype(np.int32) for name, values in sums.items()}
    watch, seconds = sums["watch"].astype(np.float32), ((now - visits.day) * 86_400).astype(np.float32)
    return Step(pages, visits.user, watch, counts["clicks"], counts["impressions"], counts["home"], seconds)
