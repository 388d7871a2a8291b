"""What moved an item: each part is the logit less the logit with that group at the mean of those it was ranked among."""

import numpy as np
import pytest

from feature_repo.names import SESSION_FEATURES, cross_names
from serving.query import Query, Request
from serving.ranking.attribution import ITEM, WEIGHED, moved
from serving.ranking.scoring import Scores, session_lift
from serving.recommender import Recommender
from serving.retrieval.reasons import HAD, PARTS, SESSION, SOURCES
from tests.serving.tiny_bundle import DAY, load_tiny, states, system

STATES = states()


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(load_tiny(tmp_path_factory.mktemp("bundle")), system())


def ranked(recommender: Recommender, user: int, clicked: int | None = None):  # type: ignore[no-untyped-def]
    state = STATES[user]
    if clicked is not None:
        state = state.with_session_event(int(recommender.catalogue.keys[clicked]), "click", DAY)
    query = recommender.query(Request(state.user_id, 10, DAY), state)
    side = recommender.user_side(query)
    pool = recommender.retrieve(query, side)
    return query, side, pool, recommender.scoring.rank(query, side, pool)


def slow(recommender: Recommender, query: Query, side, pool, scores: Scores, row: int, columns: list[int]) -> float:  # type: ignore[no-untyped-def]
    """The logit of the item's own head less that with the columns at their mean, one item at a time, through the graph's own call."""
    kept = scores.kept.tolist()
    at = int(np.flatnonzero(pool.rows == row)[0])
    head = 0 if pool.seen[at] else 1
    as_is, without = scores.cross[at].copy(), scores.cross[at].copy()
    without[columns] = scores.cross[kept].mean(axis=0)[columns]
    logits = [recommender.rankers.heavy(side, pool.rows[[at]], cross[None])[0, head] for cross in (as_is, without)]
    return float(logits[0] - logits[1])


def test_each_part_is_the_logit_without_its_group(recommender: Recommender) -> None:
    query, side, pool, scores = ranked(recommender, 3, clicked=51)
    rows = pool.rows[scores.kept[:5]]
    found = moved(recommender.scoring, query, side, pool, scores, rows, item=True)
    names = cross_names(recommender.system.kinds)
    session = [names.index(name) for name in SESSION_FEATURES]
    sources = list(range(names.index("fused"), len(names)))
    lifts = session_lift(scores.cross[scores.kept])
    for n, row in enumerate(rows.tolist()):
        assert set(found[row]) == {*PARTS, ITEM}
        assert found[row][SOURCES] == pytest.approx(slow(recommender, query, side, pool, scores, row, sources), abs=1e-5)
        lift = float(lifts[n] - lifts.mean())
        assert found[row][SESSION] == pytest.approx(slow(recommender, query, side, pool, scores, row, session) + lift, abs=1e-5)


def test_a_click_moves_the_clicked_item_by_its_session_most(recommender: Recommender) -> None:
    query, side, pool, scores = ranked(recommender, 3, clicked=51)
    parts = moved(recommender.scoring, query, side, pool, scores, np.array([51], np.int32))[51]
    assert max(parts, key=lambda part: parts[part]) == SESSION
    assert parts[SESSION] > 2  # log 10 and more: a fresh click makes the odds tenfold


def test_of_a_newcomer_the_parts_are_those_of_the_fused_rank(recommender: Recommender) -> None:
    state = STATES[0].__class__("nobody").with_session_event(int(recommender.catalogue.keys[51]), "click", DAY)
    query = recommender.query(Request("nobody", 10, DAY), state)
    side = recommender.user_side(query)
    pool = recommender.retrieve(query, side)
    scores = recommender.scoring.rank(query, side, pool)
    assert scores.by_fusion
    first = int(pool.rows[0])
    parts = moved(recommender.scoring, query, side, pool, scores, np.array([first], np.int32))[first]
    logs, lift = np.log(pool.fused), session_lift(scores.cross)
    lift[pool.rows == 51] += logs.max() - logs[pool.rows == 51]  # what was looked at counts like the best that the sources name
    assert parts == pytest.approx({SESSION: float(lift[0] - lift.mean()), SOURCES: float(logs[0] - logs.mean())})


def test_items_outside_the_pool_and_far_down_the_list_are_not_told_of(recommender: Recommender) -> None:
    query, side, pool, scores = ranked(recommender, 3)
    outside = np.setdiff1d(np.arange(240, dtype=np.int32), pool.rows)[:1]
    assert moved(recommender.scoring, query, side, pool, scores, outside) == {}
    told = moved(recommender.scoring, query, side, pool, scores, pool.rows, item=True)
    assert len(told) == min(WEIGHED, len(pool))
    assert all(HAD in parts for parts in told.values())  # those beyond the heavy ranker's too, by the light one
