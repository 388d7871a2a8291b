"""Who watches: tastes that turn slowly, languages, habits of the day, devices, consent.

Shapes: U users, T topics, D style, L languages.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.video import words

STYLE = 8  # directions of style: what the topic does not say of a taste
FAVOURITES = 4
SPEAKS_ENGLISH = 0.35  # of those whose own language is another
JOINS_LATER = 0.10  # share of users who come after the first day
TURN_DAYS = 75.0  # a median user's taste turns by a radian in so long

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Crowd:
    """The users, row by row. `tastes`, `style` and `patience` are the truth, in no table."""

    region: Ints  # (U,)
    age: Ints  # (U,)
    consent: NDArray[np.str_]  # (U,)
    speaks: NDArray[np.bool_]  # (U, L)
    joined_day: NDArray[np.float64]  # (U,) before 0: known from the start
    visits_a_day: Floats  # (U,)
    peak_hour: Floats  # (U,) of the day, around which they come
    device_shares: Floats  # (U, 3)
    tastes: Floats  # (U, 2, T) what they turn between
    turn: Floats  # (U, 2) angle at day 0, radians a day
    style: Floats  # (U, D)
    patience: Floats  # (U,) chance to look on past a video that is not clicked

    def __len__(self) -> int:
        return len(self.region)

    @property
    def language(self) -> Ints:
        """(U,) their own."""
        return np.array(words.LANGUAGE_OF_REGION, np.int32)[self.region]

    def user_id(self, row: int) -> str:
        return f"u{row:07d}"

    def taste(self, users: Ints, days: NDArray[np.float64], jump_day: float) -> Floats:
        """(S, T) how much each topic is liked at each moment; from `jump_day` on every taste is another's topics."""
        angle = (self.turn[users, 0] + self.turn[users, 1] * days).astype(np.float32)[:, None]
        liked = np.cos(angle) * self.tastes[users, 0] + np.sin(angle) * self.tastes[users, 1]
        return np.where((days >= jump_day)[:, None], np.roll(liked, len(words.TOPICS) // 2, axis=1), liked)

    def style_at(self, users: Ints, days: NDArray[np.float64], jump_day: float) -> Floats:
        """(S, D) likewise; a jump turns it round."""
        return self.style[users] * np.where(days >= jump_day, -1, 1).astype(np.float32)[:, None]


def make_crowd(random: np.random.Generator, users: int, days: float) -> Crowd:
    """Draw the users; a tenth of them join between day 0 and `days`."""
    region = random.choice(len(words.REGIONS), users, p=words.REGION_SHARES).astype(np.int32)
    age = random.choice(len(words.AGE_BANDS), users, p=words.AGE_SHARES).astype(np.int32)
    language = np.array(words.LANGUAGE_OF_REGION)[region]
    speaks = np.eye(len(words.LANGUAGES), dtype=bool)[language]
    speaks[:, 0] |= random.random(users) < SPEAKS_ENGLISH
    later = random.random(users) < JOINS_LATER
    return Crowd(
        region=region,
        age=age,
        consent=random.choice(list(words.CONSENT_SHARES), users, p=list(words.CONSENT_SHARES.values())),
        speaks=speaks,
        joined_day=np.where(later, random.uniform(0, days, users), -random.exponential(200, users) - 1),
        visits_a_day=(0.75 * random.gamma(2.0, 0.5, users) + 0.05).astype(np.float32),
        peak_hour=(random.normal(20, 3, users) % 24).astype(np.float32),
        device_shares=_devices(random, users),
        tastes=_tastes(random, region, age),
        turn=np.stack([random.uniform(0, np.pi / 2, users), random.lognormal(-np.log(TURN_DAYS), 0.5, users)], axis=1).astype(np.float32),
        style=random.normal(0, 1, (users, STYLE)).astype(np.float32),
        patience=(0.83 + 0.13 * random.beta(3, 2, users)).astype(np.float32),
    )


def _tastes(random: np.random.Generator, region: Ints, age: Ints) -> Floats:
    """(U, 2, T): a little of everybody's, of the region's and the age's, and some favourites of one's own, twice."""
    users, topics = len(region), len(words.TOPICS)
    common = random.normal(0, 0.25, topics) + random.normal(0, 0.2, (len(words.REGIONS), topics))[region]
    common = common + random.normal(0, 0.2, (len(words.AGE_BANDS), topics))[age]
    own = random.normal(0, 0.3, (users, 2, topics))
    favourite = np.argsort(random.random((users, 2, topics)), axis=2)[:, :, :FAVOURITES]
    lift = random.uniform(1.2, 2.4, favourite.shape)
    np.put_along_axis(own, favourite, np.take_along_axis(own, favourite, 2) + lift, 2)
    return (common[:, None] * 0.7 + own).astype(np.float32)


def _devices(random: np.random.Generator, users: int) -> Floats:
    shares = random.gamma((2.4, 1.2, 0.9), 1.0, (users, len(words.DEVICES)))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
