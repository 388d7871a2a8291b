"""Examples are what the server would have seen, and nothing after the cut but the labels."""

from dataclasses import replace

import numpy as np
import pytest

from components.cut import training_cuts
from components.ranking.examples import Examples, Sampling, candidates_of, chosen_users, make_examples, queries_of
from components.ranking.fitted import FittedCut, load_cut
from serving.query import Query
from serving.ranking.features import cross_features, request_features
from serving.state.user_state import UserState

FEW = Sampling(users=12, top=5, rest=5, near=20)


@pytest.fixture(scope="module")
def cut(trained) -> FittedCut:
    return load_cut(trained.system, trained.features, trained.retrieval, training_cuts(trained.features, 2)[0])


@pytest.fixture(scope="module")
def examples(trained, cut: FittedCut) -> Examples:
    return make_examples(trained.system, cut, FEW, seed=0)


def test_the_last_cuts_labels_are_not_learnt_from(trained):
    cuts = sorted(path.name for path in (trained.features / "cuts").iterdir())
    assert training_cuts(trained.features, 100) == cuts[:-1]


def test_labels_change_nothing_but_which_examples_are_right(trained, cut: FittedCut):
    """A perfect signal planted in the labels, everything being wanted, must not reach a feature."""
    everything = np.arange(len(cut.catalogue), dtype=np.int32)
    planted = replace(cut, labels=dict.fromkeys(cut.labels, everything))
    user = chosen_users(cut, 1, seed=0)[0]
    for query, other in zip(queries_of(trained.system, cut, user), queries_of(trained.system, planted, user), strict=True):
        pools = candidates_of(query, cut, trained.system, user), candidates_of(other, planted, trained.system, user)
        assert np.array_equal(cross_features(query, pools[0]), cross_features(other, pools[1]))
        assert np.array_equal(request_features(query), request_features(other))


def test_no_history_reaches_beyond_the_cut(cut: FittedCut):
    assert cut.users.last_day.max() < cut.users.cut_day == cut.catalogue.cut_day


def test_features_online_and_offline_are_the_same_bytes(trained, cut: FittedCut):
    """Online: the user's state comes packed from the store. Offline: from the cut's table."""
    user = chosen_users(cut, 1, seed=0)[0]
    for query in queries_of(trained.system, cut, user):
        online = Query(query.request, UserState.unpack(cut.users[user].pack()), cut.catalogue, trained.system.learning)
        pool = candidates_of(query, cut, trained.system, user)
        assert cross_features(query, pool).tobytes() == cross_features(online, pool).tobytes()
        assert request_features(query).tobytes() == request_features(online).tobytes()


def test_all_history_and_all_labels_in_the_pool_are_kept(trained, cut: FittedCut, examples: Examples):
    begin = 0
    users = chosen_users(cut, FEW.users, seed=0)
    questions = [(user, query) for user in users for query in queries_of(trained.system, cut, user)]
    for user, query in questions:
        pool = candidates_of(query, cut, trained.system, user)
        wanted = np.intersect1d(pool.rows, np.setdiff1d(cut.wanted(query.state.user_id), query.excluded))
        if not len(wanted):
            continue  # nothing to learn from: no example
        number = int(np.searchsorted(np.cumsum(examples.size), begin, side="right"))
        rows = slice(begin, begin + int(examples.size[number]))
        assert np.isin(np.union1d(wanted, pool.rows[pool.seen]), examples.item[rows]).all()
        assert np.array_equal(np.sort(examples.item[rows][examples.label[rows]]), wanted)
        assert examples.weight[rows].sum() == pytest.approx(len(pool))
        begin = rows.stop
    assert begin == len(examples.item)


def test_the_same_cut_and_seed_give_the_same_bytes(trained, cut: FittedCut, examples: Examples):
    again = make_examples(trained.system, cut, FEW, seed=0)
    other = make_examples(trained.system, cut, FEW, seed=1)
    assert again.cross.tobytes() == examples.cross.tobytes()
    assert other.cross.tobytes() != examples.cross.tobytes()


def test_what_was_shown_is_kept_with_its_slot_and_stands_for_itself(trained, cut: FittedCut):
    user = chosen_users(cut, 1, seed=0)[0]
    name = bytes(cut.users.user_ids[user]).decode()
    query = next(iter(queries_of(trained.system, cut, user)))
    pool = candidates_of(query, cut, trained.system, user)
    left = pool.rows[~pool.seen & ~np.isin(pool.rows, cut.wanted(name))][-3:]  # far down, where few are drawn
    shown = replace(cut, shown={name: {int(row): 4 for row in left}})
    made = make_examples(trained.system, shown, replace(FEW, users=1, rest=0), seed=0)
    first = slice(0, int(made.size[0]))
    kept = np.isin(made.item[first], left)
    assert sorted(made.item[first][kept]) == sorted(left)
    assert made.slot[first].tolist() == np.where(kept, 4, 0).tolist()
    assert not made.label[first][kept].any()
    assert (made.weight[first][kept] == 1).all()
