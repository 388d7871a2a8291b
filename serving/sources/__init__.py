"""Candidate sources: where the pool comes from. One module a kind; its twin in `components/retrieval/` fits what it loads.

These functions are what a system file writes; `load_sources` turns them into objects that answer.
"""

from serving.system import SourceSpec


def buy_again(*, share: float, tau_days: float = 90) -> SourceSpec:
    """What the user has had, by time-decayed counts."""
    return SourceSpec("buy_again", share, {"tau_days": tau_days})


def linear(*, share: float, neighbours: int = 200) -> SourceSpec:
    """Linear item-item (EASE, Steck 2019) on time-decayed log counts, the top neighbours of each item kept."""
    return SourceSpec("linear", share, {"neighbours": neighbours})


def two_tower(*, share: float, dimensions: int = 64) -> SourceSpec:
    """Nearest items to the user's vector; the item tower reads content, so an item never sold has a vector too."""
    return SourceSpec("two_tower", share, {"dimensions": dimensions})


def category_promotion(*, share: float) -> SourceSpec:
    """Category affinity x popularity x promotion x store."""
    return SourceSpec("category_promotion", share)


def trending(*, share: float, days: float = 28) -> SourceSpec:
    """What many users had lately."""
    return SourceSpec("trending", share, {"days": days})
