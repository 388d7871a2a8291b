"""What users remember of what they watched, and whom they are subscribed to: all of the world's state that outcomes depend on.

Shapes: U users, R remembered, B subscriptions, S pages, K positions.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.data.video.catalogue import Library
from components.data.video.population import STYLE, Crowd, Floats, Ints

REMEMBERED = 50  # videos
SUBSCRIPTIONS = 12  # at most; a new one takes the oldest's place


@dataclass
class Memory:
    """Rings of the latest: the place of the next entry is the count modulo the length."""

    video: Ints  # (U, R) rows, -1: none
    day: Floats  # (U, R)
    watched: Ints  # (U,) how many in all
    channel: Ints  # (U, B) subscribed to, -1: none
    joined: Ints  # (U,) how many subscriptions in all

    def copy(self) -> "Memory":
        return Memory(self.video.copy(), self.day.copy(), self.watched.copy(), self.channel.copy(), self.joined.copy())

    @classmethod
    def at_first(cls, random: np.random.Generator, crowd: Crowd, library: Library) -> Self:
        """Nothing watched; a few subscriptions, to the best liked of some channels that one came across."""
        users = len(crowd)
        offered = random.integers(0, len(library.channel_topic), (users, 4 * SUBSCRIPTIONS)).astype(np.int32)
        days = np.zeros(users)
        taste = crowd.taste(np.arange(users, dtype=np.int32), days, np.inf)
        style = np.einsum("ud,uod->uo", crowd.style, library.channel_style[offered]) / np.sqrt(STYLE)
        liked = 0.85 * np.take_along_axis(taste, library.channel_topic[offered], 1) + 0.5 * style
        liked -= 9 * ~crowd.speaks[np.arange(users)[:, None], library.channel_language[offered]]
        best = np.take_along_axis(offered, np.argsort(-liked, axis=1, kind="stable")[:, :SUBSCRIPTIONS], 1)
        held = random.integers(0, SUBSCRIPTIONS // 2 + 1, users).astype(np.int32)
        channel = np.where(np.arange(SUBSCRIPTIONS) < held[:, None], best, -1).astype(np.int32)
        nothing = np.full((users, REMEMBERED), -1, np.int32)
        return cls(nothing, np.full((users, REMEMBERED), -np.inf, np.float32), np.zeros(users, np.int32), channel, held)

    def has_watched(self, users: Ints, rows: Ints) -> NDArray[np.bool_]:
        """(S, K) among the last `REMEMBERED`."""
        return ((self.video[users][:, None, :] == rows[:, :, None]) & (rows >= 0)[:, :, None]).any(axis=2)

    def lately_of_channel(self, users: Ints, days: NDArray[np.float64], library: Library, rows: Ints) -> Ints:
        """(S, K) videos of the same channel watched within the last day, at most four."""
        recent = (self.video[users] >= 0) & (days[:, None] - self.day[users] < 1)
        channel = np.where(recent, library.channel[self.video[users]], -1)
        return np.minimum((channel[:, None, :] == library.channel[rows][:, :, None]).sum(axis=2, dtype=np.int32), 4)

    def subscribed(self, users: Ints, channels: Ints) -> NDArray[np.bool_]:
        """(S, K)"""
        return (self.channel[users][:, None, :] == channels[:, :, None]).any(axis=2)

    def note(self, users: Ints, rows: Ints, days: NDArray[np.float64]) -> None:
        """Each user (once each) watched that video."""
        place = self.watched[users] % REMEMBERED
        self.video[users, place], self.day[users, place] = rows, days
        self.watched[users] += 1

    def subscribe(self, users: Ints, channels: Ints) -> None:
        """Each user (once each) subscribed to that channel."""
        fresh = ~(self.channel[users] == channels[:, None]).any(axis=1)
        users, channels = users[fresh], channels[fresh]
        self.channel[users, self.joined[users] % SUBSCRIPTIONS] = channels
        self.joined[users] += 1
