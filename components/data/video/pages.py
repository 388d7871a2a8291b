"""A page of a visit: who asks for it, what it shows, what may be expected of it, what it brought.

Shapes: S pages, K positions.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.data.video.population import Floats, Ints

ANSWER = 20  # videos on a page
GLANCE = 3.0  # seconds a position takes
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class PageRequests:
    """Pages that are asked for: by whom, when, where and on what."""

    user: Ints  # (S,)
    day: NDArray[np.float64]  # (S,) days since the world's start
    device: Ints  # (S,)
    network: Ints  # (S,)

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, some: NDArray[np.generic] | slice) -> "PageRequests":
        return PageRequests(*(getattr(self, field.name)[some] for field in fields(self)))


@dataclass(frozen=True)
class Slates:
    """What a policy shows: (S, K) rows of the library, -1 where there is nothing, and the ids of the answers where they have any."""

    rows: Ints
    request_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: NDArray[np.integer]) -> Self:
        return cls(rows.astype(np.int32))


@dataclass(frozen=True)
class Expectation:
    """What a page brings on average: the known counterfactual answer."""

    looked: Floats  # (S, K) chance to be looked at
    impressions: Floats  # (S, K) chance to be on a screen that was reached
    clicks: Floats  # (S, K)
    watch_seconds: Floats  # (S, K)
    satisfied: Floats  # (S, K) chance of a click that was liked
    goes_on: Floats  # (S,) chance to ask for another page

    @property
    def watch_a_page(self) -> Floats:
        """(S,)"""
        return self.watch_seconds.sum(axis=1)


@dataclass(frozen=True)
class Happened:
    """What a page brought once."""

    shown: Flags  # (S, K)
    clicked: Flags  # (S, K)
    watched: Floats  # (S, K) seconds
    liked: Flags
    shared: Flags
    commented: Flags
    subscribed: Flags
    survey: Ints  # (S, K) 1 to 5 as answered, 0: not asked
    goes_on: Flags  # (S,)
    at: Floats  # (S, K) seconds since the page came at which the position was looked at

    @property
    def seconds(self) -> Floats:
        """(S,) how long the page lasted."""
        return self.at[:, -1] + self.watched[:, -1] + GLANCE
