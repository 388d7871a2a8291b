"""Asking for many users gives what asking for each would, in one process or in several."""

from dataclasses import replace

import numpy as np
import pytest

from components.evaluation import batch as asking
from components.evaluation.batch import FILLED, BatchWorker, Question, ask
from components.evaluation.metrics import NOTHING
from serving.query import Request
from tests.serving import tiny_bundle


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asking")
    tiny_bundle.states().save(folder / "users")
    return tiny_bundle.system(), tiny_bundle.write_tiny(folder), folder / "users"


EVERYBODY = np.arange(tiny_bundle.USERS)


def test_answers_are_what_the_serving_recommender_says(opened):
    (told,) = ask(*opened, [Question(EVERYBODY, 10, all_rules=True)])
    desk = BatchWorker(*opened)
    for user in EVERYBODY:
        state = desk.states[user]
        answer = desk.full.recommend(Request(state.user_id, 10, desk.states.cut_day), state)
        assert told.rows[user].tolist() == [item.row for item in answer.items]
        assert told.scores[user] == pytest.approx([item.score for item in answer.items])


def test_ranked_lists_obey_the_hard_rules_alone(opened):
    (told,) = ask(*opened, [Question(EVERYBODY, tiny_bundle.ITEMS)])
    flagged = set(range(tiny_bundle.ITEMS - 3, tiny_bundle.ITEMS))
    for rows in told.rows:
        listed = rows[rows != NOTHING].tolist()
        assert len(set(listed)) == len(listed) == tiny_bundle.ITEMS - 3  # all that is allowed, filled up from the popular list
        assert not flagged & set(listed)
    assert [rule.kind for rule in BatchWorker(*opened).ranked.system.rules] == ["in_stock", "not_recalled", "allowed"]


def test_discovering_leaves_out_what_the_user_has_had(opened):
    (told,) = ask(*opened, [Question(EVERYBODY, 50, discover=True)])
    for user in EVERYBODY:
        assert not {user, user + 12, user + 24} & set(told.rows[user].tolist())


def test_the_source_is_the_one_that_had_the_item_best_and_filled_up_items_have_none(opened):
    (told,) = ask(*opened, [Question(EVERYBODY[:1], tiny_bundle.ITEMS)])
    source = dict(zip(told.rows[0].tolist(), told.source[0].tolist(), strict=True))
    kinds = [spec.kind for spec in opened[0].sources]
    assert kinds[source[0]] in ("buy_again", "trending")  # first in both
    assert kinds[source[1]] == "linear"  # the nearest to item 0; second in trending
    assert FILLED in told.source[0]


def test_users_made_cold_are_asked_as_newcomers(opened):
    none, all_of_it = ask(*opened, [Question(EVERYBODY, 20, baskets=0), Question(EVERYBODY, 20)])
    assert none.rows[0].tolist() == none.rows[6].tolist()  # one region, one store: nothing else is known of either
    assert all_of_it.rows[0].tolist() != all_of_it.rows[6].tolist()


def test_several_processes_give_the_same_lists_as_one_in_the_same_order(opened, monkeypatch):
    questions = [Question(EVERYBODY, 30), Question(EVERYBODY[::-1], 5, all_rules=True)]
    alone = ask(*opened, questions)
    monkeypatch.setattr(asking, "ALONE_BELOW", 0)
    monkeypatch.setattr(asking, "CHUNK", 5)
    done: list[int] = []
    together = ask(*opened, questions, done.append)
    assert sum(done) == 2 * tiny_bundle.USERS
    for first, second in zip(alone, together, strict=True):
        for part in ("rows", "scores", "source"):
            assert np.array_equal(getattr(first, part), getattr(second, part)), part


def test_a_bundle_of_another_system_is_refused_by_name(opened):
    system, bundle, states = opened
    with pytest.raises(ValueError, match="packed for system 'tiny'"):
        BatchWorker(replace(system, name="other"), bundle, states)
