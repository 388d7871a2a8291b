"""Cross features where items age by the hour: how old an item is as the question comes, and whether it is from whom one follows.

A system names them in `learning.cross` (`serving/ranking/features.py`). Shapes: C candidates.
"""

import numpy as np

from serving.bundle.arrays import Floats
from serving.query import Candidates, Query


def hours_old(query: Query, candidates: Candidates) -> Floats:
    """(C,) log1p of hours since the item entered the catalogue; NaN where that is not told, or yet to come."""
    age = (query.request.at_day - np.asarray(query.catalogue.created_day)[candidates.rows]) * 24
    return np.log1p(np.where(age >= 0, age, np.nan)).astype(np.float32)


def from_followed(query: Query, candidates: Candidates) -> Floats:
    """(C,) 1 where the user follows the item's brand."""
    brand, followed = query.catalogue.brand, query.catalogue.brand[query.followed]
    return np.isin(brand[candidates.rows], followed[followed > 0]).astype(np.float32)
