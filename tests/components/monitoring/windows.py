"""Windows of served rows whose truth is known: quiet ones drawn alike, and ones with a planted shift."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

NUMBERS, TEXTS, WIDTH = 20, 4, 16
MONDAY = datetime(2024, 3, 18, tzinfo=UTC)
DAY = pd.Timedelta(days=1)


def window(
    seed: int, users: int = 3000, rows_a_user: int = 2, start: datetime = MONDAY, days: int = 7, weekend: float = 0.0
) -> pd.DataFrame:
    """Rows of users who differ among themselves; `weekend`: how much n0 is higher on Saturdays and Sundays, in standard deviations."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows_a_user)
    own = random.normal(size=(users, NUMBERS))[user]  # a user's rows resemble each other
    numbers = 0.8 * own + 0.6 * random.normal(size=own.shape)
    when = pd.Timestamp(start) + pd.to_timedelta(random.uniform(0, days, len(user)), unit="D")
    frame = pd.DataFrame({f"n{at}": column for at, column in enumerate(numbers.T)})
    frame["n0"] += weekend * (when.weekday >= 5)
    frame["prediction"] = np.abs(random.normal(0.4, 0.12, len(user)))
    for at in range(TEXTS):
        frame[f"c{at}"] = random.choice([f"kind {kind}" for kind in range(8)], len(user), p=np.arange(8, 0, -1) / 36)
    mixed = random.normal(size=(len(user), WIDTH)) * np.linspace(2, 0.2, WIDTH)  # longer one way than the other
    frame["vector"] = list(mixed.astype(np.float32))
    frame["user_id"] = [f"u{number}" for number in user]
    frame["timestamp"] = when
    return frame


def rotated(frame: pd.DataFrame, seed: int = 9) -> pd.DataFrame:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)))
    return frame.assign(vector=list((np.stack(frame["vector"]) @ turn).astype(np.float32)))


def missing(frame: pd.DataFrame, column: str, share: float, seed: int = 9) -> pd.DataFrame:
    gone = np.random.default_rng(seed).random(len(frame)) < share
    return frame.assign(**{column: frame[column].mask(gone)})


PLANTED = {
    "mean of one feature + .3 sd": ("n3", lambda frame: frame.assign(n3=frame["n3"] + 0.3)),
    "a category gone": ("c1", lambda frame: frame.assign(c1=frame["c1"].replace("kind 4", "kind 0"))),
    "nulls 0 to 5 %": ("n5 (nulls)", lambda frame: missing(frame, "n5", 0.05)),
    "scores + 10 %": ("prediction", lambda frame: frame.assign(prediction=frame["prediction"] * 1.1)),
    "embeddings rotated": ("vector", rotated),
}


def written(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_parquet(path, index=False)
    return path
