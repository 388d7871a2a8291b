"""What there is to watch: channels, and the videos they upload through time.

Shapes: C channels, V videos, D style. Rows are in the order of upload, so what is there at a moment is a prefix.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.video import words
from components.data.video.population import STYLE, Floats, Ints

BACK_DAYS = 120.0  # the oldest video is so old on day 0
MISLABELLED = 0.08  # share of videos whose public category is not what they are about
_MEDIAN_SECONDS = {"Music": 260, "Comedy": 190, "News": 240, "Games": 900, "Travel": 700}  # others: 480


@dataclass(frozen=True)
class Library:
    """The videos, row by row. `topic`, `second`, `weight`, `style`, `quality` and `bait` are the truth, in no table."""

    channel: Ints  # (V,)
    created_day: NDArray[np.float64]  # (V,) ascending
    topic: Ints  # (V,) what it is about
    second: Ints  # (V,) what it is about as well
    weight: Floats  # (V,) how much, 0 to 0.6
    style: Floats  # (V, D)
    quality: Floats  # (V,)
    bait: Floats  # (V,) how much more it promises than it holds
    label: Ints  # (V,) the topic its category names
    kind: Ints  # (V,) of `words.KINDS`
    language: Ints  # (V,)
    seconds: Floats  # (V,) duration
    resolution: Ints  # (V,)
    fps: Ints  # (V,)
    sound: Ints  # (V,)
    flag: NDArray[np.str_]  # (V,) policy flag, empty: none
    channel_topic: Ints  # (C,)
    channel_language: Ints  # (C,)
    channel_style: Floats  # (C, D)
    title_seed: int

    def __len__(self) -> int:
        return len(self.channel)

    def item_id(self, row: int) -> str:
        return f"v{row:08d}"

    def there(self, day: float) -> int:
        """How many are uploaded by then: the rows before it."""
        return int(np.searchsorted(self.created_day, day, side="right"))

    @property
    def showable(self) -> NDArray[np.bool_]:
        """(V,) carries no policy flag."""
        return self.flag == ""

    @property
    def stale_days(self) -> Floats:
        """(V,) in so long interest in it falls by e."""
        by_topic = np.array([words.STALE_DAYS.get(name, 90.0) for name in words.DEPARTMENT_OF], np.float32)
        return by_topic[self.topic]


def make_library(random: np.random.Generator, channels: int, videos: int, days: float, ahead_days: float) -> Library:
    """Draw channels and `videos` uploads until day `days`, and at the same pace those of `ahead_days` more."""
    topics = len(words.TOPICS)
    home = random.integers(0, topics, channels).astype(np.int32)
    spoken = np.zeros(len(words.LANGUAGES))
    np.add.at(spoken, list(words.LANGUAGE_OF_REGION), words.REGION_SHARES)
    tongue = random.choice(len(words.LANGUAGES), channels, p=spoken).astype(np.int32)
    manner = random.normal(0, 0.8, (channels, STYLE)).astype(np.float32)
    standing = random.normal(0, 0.6, channels)
    busy = random.pareto(1.5, channels) + 0.2
    total = round(videos * (BACK_DAYS + days + ahead_days) / (BACK_DAYS + days))
    of = random.choice(channels, total, p=busy / busy.sum()).astype(np.int32)
    strays = random.random(total) < 0.1
    topic = np.where(strays, random.integers(0, topics, total), home[of]).astype(np.int32)
    return Library(
        channel=of,
        created_day=np.sort(_uploads(random, videos, total, days, ahead_days)),
        topic=topic,
        second=random.integers(0, topics, total).astype(np.int32),
        weight=random.uniform(0, 0.6, total).astype(np.float32),
        style=manner[of] + random.normal(0, 0.4, (total, STYLE)).astype(np.float32),
        quality=(standing[of] + random.normal(0, 0.6, total)).astype(np.float32),
        bait=random.exponential(0.4, total).astype(np.float32),
        label=np.where(random.random(total) < MISLABELLED, random.integers(0, topics, total), topic).astype(np.int32),
        kind=random.integers(0, len(words.KINDS), total).astype(np.int32),
        language=tongue[of],
        seconds=_seconds(random, topic),
        resolution=random.choice(len(words.RESOLUTIONS), total, p=words.RESOLUTION_SHARES).astype(np.int32),
        fps=random.choice((24, 30, 60), total, p=(0.2, 0.6, 0.2)).astype(np.int32),
        sound=random.choice(len(words.SOUNDS), total, p=words.SOUND_SHARES).astype(np.int32),
        flag=_flags(random, total),
        channel_topic=home,
        channel_language=tongue,
        channel_style=manner,
        title_seed=int(random.integers(1 << 62)),
    )


def _uploads(random: np.random.Generator, videos: int, total: int, days: float, ahead_days: float) -> NDArray[np.float64]:
    """Days of upload: `videos` of them until `days`, the others after."""
    return np.concatenate([random.uniform(-BACK_DAYS, days, videos), random.uniform(days, days + ahead_days, total - videos)])


def _seconds(random: np.random.Generator, topic: Ints) -> Floats:
    median = np.array([_MEDIAN_SECONDS.get(name, 480) for name in words.DEPARTMENT_OF])[topic]
    return np.clip(median * random.lognormal(0, 0.7, len(topic)), 15, 4 * 3600).round().astype(np.float32)


def _flags(random: np.random.Generator, total: int) -> NDArray[np.str_]:
    names = ["", *words.FLAG_SHARES]
    return random.choice(names, total, p=[1 - sum(words.FLAG_SHARES.values()), *words.FLAG_SHARES.values()])
