"""The policy that knows the truth: of all lists, that of the greatest expected watch time.

Where the next video is reached only past the one before, the best order of given videos is by gain / (1 - chance to go on), whatever else
stands there (exchange of neighbours), so the best K of N are found by a dynamic programme over the videos in that order. It is exact but
for two things: only the most promising candidates are looked at, and a channel's second and third video are taken to follow its first.
Exchanges of one or two videos better no page of it by a per cent.
Shapes: S pages, N candidates, K positions.
"""

from dataclasses import dataclass

import numpy as np

from components.data.video.behaviour import Chances
from components.data.video.live import World
from components.data.video.pages import ANSWER, PageRequests, Slates
from components.data.video.population import Floats, Ints

AT_ONCE = 100  # pages
PROMISING = 400  # candidates whose outcome is worked out
CONSIDERED = 120  # of them those the programme chooses from
OF_CHANNEL = 3  # most videos of one channel on a page


@dataclass(frozen=True)
class Oracle:
    """Shows what the truth says is watched longest; never a flagged or a watched video."""

    world: World

    def __call__(self, visits: PageRequests) -> Slates:
        parts = [self._best(visits[start : start + AT_ONCE]) for start in range(0, len(visits), AT_ONCE)]
        return Slates.of(np.concatenate(parts) if parts else np.zeros((0, ANSWER), np.int32))

    def _best(self, visits: PageRequests) -> Ints:
        rows = self._promising(visits)  # (S, N)
        channel = self.world.library.channel[rows]
        behaviour, memory = self.world.behaviour, self.world.memory
        alone = behaviour.chances(visits, rows, memory, np.zeros_like(rows))
        order = np.argsort(-_worth(alone), axis=1, kind="stable")
        rows, channel = (np.take_along_axis(values, order, 1) for values in (rows, channel))
        nth = _nth_of_its_kind(channel)
        chances = behaviour.chances(visits, rows, memory, nth)
        out = (nth >= OF_CHANNEL) | memory.has_watched(visits.user, rows)
        worth = np.where(out, -1, _worth(chances))
        chosen = np.argsort(-worth, axis=1, kind="stable")[:, :CONSIDERED]
        gain, on = (np.take_along_axis(values, chosen, 1) for values in (np.where(out, -1e9, chances.watch_seconds), chances.goes_on))
        return np.take_along_axis(rows, np.take_along_axis(chosen, best_places(gain, on, ANSWER), 1), 1)

    def _promising(self, visits: PageRequests) -> Ints:
        """(S, N) the showable videos of the greatest watch time, looked at alone by somebody who remembers nothing."""
        world = self.world
        there = np.flatnonzero(world.library.showable[: world.there]).astype(np.int32)
        everything = np.broadcast_to(there, (len(visits), len(there)))
        value = world.behaviour.alone(visits, everything).watch_seconds
        few = min(PROMISING, len(there))
        return there[np.argpartition(-value, few - 1, axis=1)[:, :few]]


def _worth(chances: Chances) -> Floats:
    return (chances.watch_seconds / np.maximum(1 - chances.goes_on, 1e-3)).astype(np.float32)


def _nth_of_its_kind(kind: Ints) -> Ints:
    """(S, N) how many of the same kind stand before, without comparing all with all."""
    order = np.argsort(kind, axis=1, kind="stable")
    ordered = np.take_along_axis(kind, order, 1)
    place = np.arange(kind.shape[1])[None]
    starts = np.maximum.accumulate(np.where(np.diff(ordered, axis=1, prepend=-1) != 0, place, 0), axis=1)
    nth = np.empty_like(kind)
    np.put_along_axis(nth, order, (place - starts).astype(kind.dtype), 1)
    return nth


def best_places(gain: Floats, on: Floats, size: int) -> Ints:
    """(S, size) ascending places of the best `size` of N candidates that come in their best order.

    `gain` (S, N): seconds when looked at; `on`: chance to look on after it. The value of taking j of the candidates from i on is the better
    of leaving i out, and gain_i + on_i times the value of j - 1 of those after it.
    """
    pages, candidates = gain.shape
    size = min(size, candidates)
    value = np.full((pages, size + 1), -1e12, np.float64)
    value[:, 0] = 0
    takes = np.zeros((candidates, pages, size + 1), bool)
    for i in range(candidates - 1, -1, -1):
        taken = np.full_like(value, -np.inf)
        taken[:, 1:] = gain[:, i, None] + on[:, i, None] * value[:, :-1]
        takes[i] = taken > value
        value = np.maximum(value, taken)
    left = np.full(pages, size)
    chosen = np.zeros((pages, size), np.int32)
    for i in range(candidates):
        take = takes[i, np.arange(pages), left] & (left > 0)
        chosen[take, size - left[take]] = i
        left = left - take
    return chosen
