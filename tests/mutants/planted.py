"""Faults that a person planted and no test noticed, kept so that they stay noticed: always among those tried."""

from collections.abc import Iterator

from tests.mutants.making import Mutant

PLANTED = (
    # a repeat counted twice in a user's state
    ("serving/state/user_state.py", "counts[at] += 1", "counts[at] += 2"),
    # a late event's first day not moved back
    ("serving/state/user_state.py", "first[at] = min(first[at], day)", "first[at] = first[at]"),
    # reasons taken from the worst source instead of the best
    ("serving/retrieval/reasons.py", "key=ranks.__getitem__)", "key=ranks.__getitem__, reverse=True)"),
    # debuts counted among old items
    ("components/retrieval/two_tower.py", "fresh = first >= since", "fresh = first >= -np.inf"),
    ("components/retrieval/two_tower.py", "history.users_since(since) * fresh", "history.users_since(since)"),
    ("components/evaluation/slices.py", "first_sold_day >= cut_day - NEW_ITEM_DAYS", "first_sold_day >= -np.inf"),
)


def planted_in(path: str, source: str) -> Iterator[Mutant]:
    """Those of one module. Raises `ValueError` for one whose place is gone: say it in the words that stand there now."""
    for where, was, became in PLANTED:
        if where == path:
            if was not in source:
                raise ValueError(f"{path}: expected {was!r} where a fault is planted: tests/mutants/planted.py names a line that is gone")
            yield Mutant.of(path, source, source.replace(was, became, 1), planted=True)
