"""What users may see under a system's rules: which items no answer ever holds, and which question its answers are to.

Shapes: I items, U users, L list length.
"""

import numpy as np
from numpy.typing import NDArray

from components.evaluation.metrics import NOTHING, Lists
from serving.bundle.catalogue import Catalogue
from serving.rules.rule import Bar
from serving.rules.specs import NotSeen
from serving.system import System

ALL, NEW = "all", "new"  # protocols: everything may be answered; only what a user has not had


def measures(system: System) -> tuple[str, ...]:
    """The guarded metrics, first the one that decides: at an answer's places, or, of who is asked amid a session, by what came next."""
    if system.learning.asked == "amid sessions":
        return "mrr@20", "recall@20"
    return f"ndcg@{system.answer_size}", "recall@100", "recall@1000"


def deciding_protocol(system: System) -> str:
    """The protocol a release is decided by: of a system that never repeats (`not_seen`) only what is new to a user counts."""
    return NEW if any(isinstance(rule, NotSeen) for rule in system.rules) else ALL


def protocols(system: System) -> tuple[str, ...]:
    """Every protocol a candidate may do no harm in, the deciding one first."""
    return (NEW,) if deciding_protocol(system) == NEW else (ALL, NEW)


def barred_items(system: System, catalogue: Catalogue) -> NDArray[np.bool_]:
    """(I,) items that a hard rule of the system keeps out of every answer."""
    barred = np.zeros(len(catalogue), bool)
    for rule in system.rules:
        if isinstance(rule, Bar):
            barred |= rule.bars(catalogue)
    return barred


def without_barred(lists: Lists, barred: NDArray[np.bool_]) -> Lists:
    """The lists with barred items taken out and the rest moved up. Rows past the end of `barred` are of items it does not know. (U, L)"""
    known = (lists != NOTHING) & (lists < len(barred))
    out = known & barred[np.where(known, lists, 0)]
    kept = np.where(out, NOTHING, lists)
    order = np.argsort(kept == NOTHING, axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1)
