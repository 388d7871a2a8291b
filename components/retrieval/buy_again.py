"""Fits `serving/retrieval/buy_again.py`: how readily each item is bought again."""

from pathlib import Path

import numpy as np

from components.cut import Cut
from serving.retrieval.buy_again import Habits
from serving.system import SourceSpec

POWER = 0.3  # on the choosing week: all N@10 .319 -> .323, R@100 .352 -> .361
_PRIOR_AGAIN, _PRIOR_BUYERS = 1.0, 10.0


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """rebuy(i) = (1 + users who had it on two days or more) / (10 + users who had it), to a power."""
    history = cut.history
    again = np.floor(history.last_day) > np.floor(history.first_day)
    came_back = np.bincount(history.row, again, minlength=history.shape[1])
    buyers = np.bincount(history.row, minlength=history.shape[1])
    factor = ((came_back + _PRIOR_AGAIN) / (buyers + _PRIOR_BUYERS)) ** POWER
    Habits(factor.astype(np.float32), float(spec.settings["tau_days"])).save(folder)
