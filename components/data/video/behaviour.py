"""How a list is met: what is looked at, clicked, watched and liked, and when the visit ends; drawn, or as its exact expectation.

A page is read from the top. A video that is looked at is clicked with `click`; what is clicked is watched for a Beta-distributed share of
its length with mean `fraction`. Then the reader looks on with `after_click` or `after_skip`, else the visit ends. So the chance to reach a
position is a product, and every expectation of a list is known without drawing: that is the position bias, and the counterfactual answer.

Shapes: S pages (one visit's), K positions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from components.data.video import words
from components.data.video.catalogue import Library
from components.data.video.memory import Memory
from components.data.video.pages import GLANCE, Expectation, Happened, PageRequests
from components.data.video.population import STYLE, Crowd, Floats, Ints

SPREAD = 4.0  # of the Beta distribution of the watched share: its two parameters sum to it
REPEAT = 0.5  # off the click's logit for each earlier video of the channel on the page
TIRED = 0.35  # off it for each one watched within a day, of at most four
WATCHED = 2.5  # off it for a video watched before
FOREIGN = 2.5  # off the affinity for a language not spoken
SUBSCRIBED = 0.5  # onto the click's logit


@dataclass(frozen=True)
class Chances:
    """(S, K) of every position that is looked at. Where there is no video: no click, and the reader looks on."""

    click: Floats
    fraction: Floats  # mean share of the length that is watched, once clicked
    satisfaction: Floats  # chance to be content, once clicked
    after_click: Floats
    after_skip: Floats
    seconds: Floats  # duration

    @property
    def goes_on(self) -> Floats:
        """(S, K) chance to look past the position."""
        return self.click * self.after_click + (1 - self.click) * self.after_skip

    @property
    def watch_seconds(self) -> Floats:
        """(S, K) mean of the seconds watched of what is looked at."""
        return self.click * self.fraction * self.seconds


@dataclass(frozen=True)
class Behaviour:
    """The interaction model of one crowd and library."""

    crowd: Crowd
    library: Library
    jump_day: float = np.inf  # the night in which all tastes become others'

    def affinity(self, visits: PageRequests, rows: Ints) -> Floats:
        """(S, K) how much each user wants each video at that moment, whatever else is on the page: the latent truth."""
        library, users = self.library, visits.user
        taste = self.crowd.taste(users, visits.day, self.jump_day)
        topic = np.take_along_axis(taste, library.topic[rows], 1)
        topic = topic + library.weight[rows] * np.take_along_axis(taste, library.second[rows], 1)
        style = self.crowd.style_at(users, visits.day, self.jump_day) / np.float32(np.sqrt(STYLE))
        manner = np.einsum("sd,skd->sk", style, library.style[rows])
        foreign = ~self.crowd.speaks[users[:, None], library.language[rows]]
        return (0.85 * topic + 0.5 * manner - FOREIGN * foreign).astype(np.float32)

    def chances(self, visits: PageRequests, rows: Ints, memory: Memory | None, repeats: Ints | None = None) -> Chances:
        """Of every position. `repeats` (S, K): earlier videos of the channel on the page; counted from `rows` where not given."""
        library = self.library
        affinity, quality, bait = self.affinity(visits, rows), library.quality[rows], library.bait[rows]
        again = earlier_of_channel(library, rows) if repeats is None else repeats
        age = np.maximum(visits.day[:, None] - library.created_day[rows], 0).astype(np.float32)
        fresh = np.exp(-age / library.stale_days[rows])
        logit = -3.2 + 1.1 * affinity + 0.3 * quality + 0.5 * bait + 0.5 * fresh
        logit -= REPEAT * again
        if memory is not None:
            logit += SUBSCRIBED * memory.subscribed(visits.user, library.channel[rows])
            logit -= TIRED * memory.lately_of_channel(visits.user, visits.day, library, rows)
            logit -= WATCHED * memory.has_watched(visits.user, rows)
        satisfaction = _sigmoid(0.9 * affinity + 0.9 * quality - 0.8 * bait - 0.6)
        there = rows >= 0
        return Chances(
            click=np.where(there, _sigmoid(logit), 0),
            fraction=self._fraction(visits, rows, affinity),
            satisfaction=satisfaction,
            after_click=np.where(there, 0.74 + 0.25 * satisfaction, 1),
            after_skip=np.where(there, self.crowd.patience[visits.user][:, None], 1),
            seconds=library.seconds[rows],
        )

    def alone(self, visits: PageRequests, rows: Ints) -> Chances:
        """The chances of each video as the only one on a page, of somebody who remembers nothing and is subscribed to nobody."""
        return self.chances(visits, rows, None, np.zeros((1, 1), np.int32))

    def _fraction(self, visits: PageRequests, rows: Ints, affinity: Floats) -> Floats:
        """Mean watched share: less of long ones, less in the morning and on a slow line, more before a television."""
        library = self.library
        stalls = (visits.network == words.NETWORKS.index("4g"))[:, None] & (library.resolution[rows] == len(words.RESOLUTIONS) - 1)
        sofa = (visits.device == words.DEVICES.index("tv"))[:, None]
        morning = ((visits.day % 1 * 24) < 10)[:, None]
        length = np.log(library.seconds[rows] / 300)
        logit = -0.4 + 0.7 * affinity + 0.4 * library.quality[rows] - 0.7 * library.bait[rows] - 0.8 * length
        return _sigmoid(logit + 0.4 * sofa - 0.3 * morning - 0.8 * stalls)

    def expected(self, visits: PageRequests, rows: Ints, memory: Memory) -> Expectation:
        """The exact expectation of showing `rows` (S, K; -1: nothing there) at those visits, given what each user remembers."""
        chances = self.chances(visits, rows, memory)
        on = np.cumprod(chances.goes_on, axis=1)
        looked = np.concatenate([np.ones((len(rows), 1), np.float32), on[:, :-1]], axis=1)
        looked = np.where(rows >= 0, looked, 0)
        first = first_of_screen(visits, rows.shape[1])
        impressions = np.where(rows >= 0, np.take_along_axis(np.concatenate([np.ones_like(on[:, :1]), on], axis=1), first, 1), 0)
        clicks = looked * chances.click
        return Expectation(
            looked, impressions, clicks, looked * chances.watch_seconds, clicks * chances.satisfaction, on[:, -1] * (rows >= 0).any(axis=1)
        )

    def draw(
        self, random: np.random.Generator, luck: Floats, visits: PageRequests, rows: Ints, memory: Memory, asked: bool = False
    ) -> Happened:
        """One outcome of each page. `luck` (7, S, K), uniform: two policies may meet the same. `asked`: searched for, so it is clicked."""
        chances, shape = self.chances(visits, rows, memory), rows.shape
        would = luck[0] < (1 if asked else chances.click)
        on = np.cumprod(luck[1] < np.where(would, chances.after_click, chances.after_skip), axis=1).astype(bool)
        looked = np.concatenate([np.ones((shape[0], 1), bool), on[:, :-1]], axis=1) & (rows >= 0)
        reached = np.concatenate([np.ones((shape[0], 1), bool), on], axis=1)
        clicked = looked & would
        content = np.where(clicked, chances.satisfaction, 0)
        share = random.beta(SPREAD * chances.fraction, SPREAD * (1 - chances.fraction)).astype(np.float32)
        watched = np.where(clicked, share * chances.seconds, 0).astype(np.float32)
        spent = np.where(looked, GLANCE, 0) + watched
        surveyed = clicked & (luck[6] < 0.02)
        return Happened(
            shown=np.take_along_axis(reached, first_of_screen(visits, shape[1]), 1) & (rows >= 0),
            clicked=clicked,
            watched=watched,
            liked=luck[2] < 0.15 * content,
            shared=luck[3] < 0.02 * content,
            commented=luck[4] < 0.03 * content,
            subscribed=luck[5] < 0.03 * content,
            survey=np.where(surveyed, 1 + random.binomial(4, chances.satisfaction), 0).astype(np.int32),
            goes_on=on[:, -1] & (rows >= 0).any(axis=1),
            at=(np.cumsum(spent, axis=1) - spent).astype(np.float32),
        )


def first_of_screen(visits: PageRequests, positions: int) -> NDArray[np.int64]:
    """(S, K) the first position on the screen that holds each one."""
    screen = np.array(words.SCREEN)[visits.device][:, None]
    return np.arange(positions)[None] // screen * screen


def earlier_of_channel(library: Library, rows: Ints) -> Ints:
    """(S, K) how many videos of the same channel stand above."""
    channel = np.where(rows >= 0, library.channel[rows], -1 - np.arange(rows.shape[1]))
    above = np.tril(np.ones((rows.shape[1],) * 2, bool), -1)
    return ((channel[:, :, None] == channel[:, None, :]) & above).sum(axis=2, dtype=np.int32)


def _sigmoid(x: NDArray[np.floating]) -> Floats:
    return expit(x).astype(np.float32)
