"""The rival that looks at a session's newest item, with a pencil; and V-SKNN finds what follows where popularity cannot."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from components.evaluation import next_item
from components.evaluation.metrics import NOTHING, Target
from components.evaluation.next_item import had_together, newest_items
from components.retrieval.sessions import table
from serving.retrieval.sessions import Sessions, sessions
from serving.retrieval.top_k import descending
from tests.components.retrieval.worlds import CUT_DAY, catalogue, states

ITEMS = catalogue("abcdef")


def truth(past, now, names="xy"):
    """Sessions before the cut, and those that are asked: (session, item, day)."""
    asked = states(now, names)
    return SimpleNamespace(known=states(past, "12345"), states=asked, catalogue=ITEMS, users=np.arange(len(asked)))


def test_what_was_had_with_the_newest_item_most_often_first():
    past = [
        (session, item, CUT_DAY - 1)
        for session, items in {"1": "ab", "2": "ab", "3": "ac", "4": "acd", "5": "bde"}.items()
        for item in items
    ]
    now = [("x", "e", CUT_DAY - 0.2), ("x", "a", CUT_DAY - 0.1), ("y", "f", CUT_DAY - 0.1)]
    asked = truth(past, now)
    assert newest_items(asked).tolist() == [0, 5]
    nothing = Target(np.empty(0, int), np.empty(0, int), 2)
    lists = had_together(asked, 4, np.zeros(6, bool), nothing)
    assert lists.tolist() == [[1, 2, 3, NOTHING], [NOTHING] * 4]  # a with b twice, with c twice, with d once; f with nothing
    barred = np.arange(6) == 1
    assert had_together(asked, 4, barred, Target(np.array([0]), np.array([3]), 2))[0].tolist() == [2, NOTHING, NOTHING, NOTHING]
    assert had_together(asked, 1, np.zeros(6, bool), nothing)[0].tolist() == [1]


def slowly(asked, length, barred, without):
    """Session by session: count what others had beside its newest item."""
    lists = []
    for place, index in enumerate(asked.users.tolist()):
        state = asked.states[index]
        newest = ITEMS.rows_of_keys(state.keys[np.argmax(state.last_day)][None])[0] if len(state.keys) else None
        beside = Counter()
        for other in range(len(asked.known)):
            rows = ITEMS.rows_of_keys(asked.known[other].keys).tolist()
            beside.update(rows if newest in rows else [])
        kept = [row for row in beside if row != newest and not barred[row] and row not in without.get(place, ())]
        best = sorted(kept, key=lambda row: (-beside[row], row))[:length]
        lists.append(best + [NOTHING] * (length - len(best)))
    return lists


@pytest.mark.parametrize("at_once", [1, 2, 500])
def test_many_sessions_are_listed_as_one_by_one(at_once, monkeypatch):
    monkeypatch.setattr(next_item, "_ITEMS", at_once)
    made = np.random.default_rng(3)
    past = [(session, item, CUT_DAY - made.uniform(1, 9)) for session in "12345" for item in made.choice(list("abcdef"), 3, replace=False)]
    now = [(session, item, CUT_DAY - made.uniform(0, 1)) for session in "pqrstuv" for item in made.choice(list("abcdef"), 2, replace=False)]
    asked = truth(past, now, "nopqrstuv")  # n and o had nothing
    barred, without = np.arange(6) == 4, {2: {0, 1}, 3: {5}, 5: {2}}
    pairs = [(user, item) for user, items in without.items() for item in sorted(items)]
    out = Target(np.array([user for user, _ in pairs]), np.array([item for _, item in pairs]), 9)
    assert had_together(asked, 4, barred, out).tolist() == slowly(asked, 4, barred, without)


def hits(listed, sessions, k):
    """How often the next item is among the first k, over every item of a session but its first."""
    return np.mean([session[at] in listed(session[:at])[:k] for session in sessions for at in range(1, len(session))])


def test_neighbours_foretell_what_popularity_cannot():
    """Sessions walk along one of 30 topics of 10 items, each step to one of the two that follow: two in three steps are known."""
    made, count, topics, size = np.random.default_rng(1), 3000, 30, 10
    logged = []
    for _ in range(count):
        at, topic = made.integers(size), made.integers(topics)
        steps = np.cumsum(made.integers(1, 3, 4))
        logged.append(np.array([topic * size + (at + step) % size for step in (0, *steps)]))
    whole = [np.array(list(dict.fromkeys(session.tolist())), np.int32) for session in logged]
    past, future = whole[:2700], whole[2700:]
    owner = np.repeat(np.arange(len(past)), [len(one) for one in past])
    days = owner + np.concatenate([np.arange(len(one)) for one in past]) / 100
    source = Sessions(sessions(share=1.0), table(owner, np.concatenate(past), days, topics * size, 1.0))

    def neighbours(so_far):
        rows, scores = source.scored(so_far)
        return rows[descending(scores)]

    popular = np.argsort(-np.bincount(np.concatenate(past)), kind="stable")
    assert hits(neighbours, future, 5) > 0.6
    assert hits(lambda _: popular, future, 5) < 0.1
