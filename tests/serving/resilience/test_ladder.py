"""Whatever fails or is slow, the answer is full, obeys the rules, and names its rung."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.schema import POLICY_FLAGS
from serving.bundle.bundle import BadBundle, Bundle
from serving.bundle.signature import load_signed
from serving.query import Answer, Candidates, Query, Request
from serving.ranking.rankers import UserSide
from serving.ranking.scoring import Scores
from serving.recommender import Recommender
from serving.resilience.cache import Caches
from serving.resilience.ladder import COSTS, Ladder
from serving.state.user_state import UserState
from tests.serving.resilience.test_breaker import Clock
from tests.serving.tiny_bundle import DAY, ITEMS, load_tiny, states, system, write_tiny

USERS = states()
REQUEST = Request("u03", 10, DAY, "r")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundle")


@pytest.fixture
def recommender(folder: Path) -> Recommender:
    return Recommender(load_tiny(folder), system())


def ladder_of(recommender: Recommender, **more: Any) -> Ladder:
    """A ladder whose clock stands still unless a test moves it: a busy machine changes no rung."""
    return Ladder(recommender, **{"clock": Clock(), **more})


def fail(*_: Any) -> Any:
    raise OSError("gone")


def check(answer: Answer, recommender: Recommender, k: int = 10) -> None:
    """Full, distinct, nothing barred, at most three a category, one new item."""
    rows = [item.row for item in answer.items]
    catalogue = recommender.catalogue
    barred = sum(1 << POLICY_FLAGS.index(flag) for flag in ("recalled", "out_of_stock", "blocked"))
    assert len(set(rows)) == len(rows) == k
    assert not (catalogue.flags[rows] & barred).any()
    assert np.bincount(catalogue.category[rows[:10], 1]).max() <= 3
    assert (catalogue.created_day[rows[:10]] > DAY - 14).any()
    assert all(item.reason for item in answer.items)


def test_nothing_wrong_is_the_full_rung_and_the_recommenders_own_list(recommender: Recommender) -> None:
    answer = ladder_of(recommender).answer(REQUEST, USERS[3])
    assert answer.degraded is None
    assert answer.items == recommender.recommend(REQUEST, USERS[3]).items
    assert set(answer.stage_ms) == {"user_side", "retrieve", "light", "heavy", "arrange"}


def test_a_failed_state_read_is_said_and_answered_all_the_same(recommender: Recommender) -> None:
    answer = ladder_of(recommender).answer(REQUEST, USERS[3], reason="user states cannot be read")
    assert answer.degraded == {"rung": "full", "reason": "user states cannot be read", "cost": COSTS["full"]}
    check(answer, recommender)


@pytest.mark.parametrize(
    ("broken", "user", "rung"),
    [
        (("heavy",), 3, "light"),
        (("light",), 3, "cached"),
        (("retrieve",), 3, "cached"),
        (("user_side",), 3, "cached"),
        (("retrieve", "lists"), 3, "linear"),
        (("retrieve", "lists", "linear"), 3, "popular"),  # u03 lives in "east"
        (("retrieve", "lists", "linear"), 2, "static"),  # u02's region has no list
    ],
)
def test_each_failure_names_its_rung_and_keeps_the_rules(folder: Path, broken: tuple[str, ...], user: int, rung: str) -> None:
    from serving.bundle.bundle import Bundle

    recommender = Recommender(Bundle.load(write_tiny(folder / "lists", user_lists="lists" not in broken)), system())
    for stage in broken:
        if stage in ("retrieve", "user_side"):
            setattr(recommender, stage, fail)
        if stage in ("heavy", "light"):
            setattr(recommender.scoring, stage, fail)
        if stage == "linear":
            object.__setattr__(recommender.sources[1], "retrieve", fail)
    request = Request(USERS[user].user_id, 10, DAY, "r")
    answer = ladder_of(recommender).answer(request, USERS[user])
    assert answer.degraded is not None
    assert answer.degraded["rung"] == rung
    assert "OSError: gone" in answer.degraded["reason"]
    assert answer.degraded["cost"] == COSTS[rung]
    check(answer, recommender)


def test_a_users_last_good_list_is_the_cached_rung(recommender: Recommender) -> None:
    ladder = ladder_of(recommender, caches=Caches(recommender.bundle.digest, Clock()))
    good = ladder.answer(REQUEST, USERS[3])
    ladder.caches.pools.clear()  # type: ignore[union-attr]
    recommender.retrieve = fail  # type: ignore[method-assign]
    answer = ladder.answer(REQUEST, USERS[3])
    assert answer.degraded is not None
    assert answer.degraded["rung"] == "cached"
    assert [item.item_id for item in answer.items] == [item.item_id for item in good.items]


@pytest.mark.parametrize(
    "corrupt", [np.array([1.5, 2.0]), np.array([5, 99999], np.int32), np.array([7, 7], np.int32), "not rows", np.array([-1], np.int32)]
)
def test_a_corrupt_cached_list_is_passed_over(recommender: Recommender, corrupt: Any) -> None:
    caches = Caches(recommender.bundle.digest, Clock())
    caches.lists.put("u03", corrupt)
    recommender.retrieve = fail  # type: ignore[method-assign]
    answer = ladder_of(recommender, caches=caches).answer(REQUEST, USERS[3])
    assert answer.degraded is not None
    assert answer.degraded["rung"] == "linear"
    assert "cached list" in answer.degraded["reason"]
    check(answer, recommender)


@pytest.mark.parametrize("wrong", [ITEMS, 10_000_000, -2, np.iinfo(np.int32).min])
def test_spoilt_lists_in_a_bundle_cost_a_server_that_rung_only(tmp_path: Path, wrong: int) -> None:
    folder = write_tiny(tmp_path)
    path = folder / "fallback" / "user_rows.npy"
    rows = np.load(path)
    rows[3, 5] = wrong
    np.save(path, rows)
    with pytest.raises(BadBundle, match=f"user_rows.npy holds {wrong} at"):  # whoever makes, fetches or judges one is told
        Bundle.load(folder, verify=False)
    bundle = load_signed(folder, verified=False)
    hybrid = Recommender(bundle, replace(system(), hybrid=True))
    recommender = Recommender(bundle, system())
    assert ladder_of(recommender).answer(REQUEST, USERS[3]).degraded is None
    recommender.retrieve = fail  # type: ignore[method-assign]
    for made, told in ((recommender, "OSError: gone"), (hybrid, f"the user's batch list names row {wrong} of {ITEMS} items")):
        answer = ladder_of(made).answer(REQUEST, USERS[3])
        assert answer.degraded is not None
        assert answer.degraded["rung"] == "linear"
        assert told in answer.degraded["reason"]
        assert "cached list: names items the bundle lacks" in answer.degraded["reason"]
        check(answer, made)
    other = ladder_of(recommender).answer(Request("u04", 10, DAY, "r"), USERS[4])
    assert other.degraded is not None
    assert other.degraded["rung"] == "cached"  # whose list is whole


def test_a_hybrid_system_counts_whom_the_batch_knew(recommender: Recommender) -> None:
    """Three users with a list and a stranger: three of four found; a pool used again is not asked for, and a plain system asks for none."""
    caches = Caches("digest", lambda: 0.0)
    hybrid = Ladder(Recommender(recommender.bundle, replace(system(), hybrid=True)), caches=caches)
    for user, state in ((f"u{n:02}", USERS[n]) for n in (3, 4, 5, 3)):
        hybrid.answer(Request(user, 10, DAY), state)
    hybrid.answer(Request("nobody", 10, DAY), UserState("nobody"))
    assert caches.counters()["batch"] == {"hits": 3, "misses": 1}
    plain = Caches("digest", lambda: 0.0)
    Ladder(recommender, caches=plain).answer(Request("u03", 10, DAY), USERS[3])
    assert plain.counters()["batch"] == {"hits": 0, "misses": 0}


def test_an_unknown_user_is_no_failure(recommender: Recommender) -> None:
    answer = ladder_of(recommender).answer(Request("nobody", 10, DAY), UserState("nobody"))
    assert answer.degraded is None
    check(answer, recommender)


def slowed(function: Callable[..., Any], clock: Clock, milliseconds: float) -> Callable[..., Any]:
    def slow(*args: Any) -> Any:
        clock.now += milliseconds / 1e3
        return function(*args)

    return slow


def test_a_slow_stage_costs_the_rungs_after_it(recommender: Recommender) -> None:
    clock = Clock()
    recommender.scoring.light = slowed(recommender.scoring.light, clock, 101)  # type: ignore[method-assign]
    answer = ladder_of(recommender, clock=clock).answer(REQUEST, USERS[3])
    assert answer.degraded is not None
    assert answer.degraded["rung"] == "light"
    assert answer.degraded["reason"].startswith("heavy: 0.0 ms left")
    check(answer, recommender)


def test_a_stage_that_lately_took_longer_than_is_left_is_not_begun_and_is_tried_again_later(recommender: Recommender) -> None:
    clock = Clock()
    ladder = ladder_of(recommender, clock=clock)
    heavy = recommender.scoring.heavy
    recommender.scoring.heavy = slowed(heavy, clock, 200)  # type: ignore[method-assign]
    rungs = []
    for number in range(12):
        if number == 2:
            recommender.scoring.heavy = heavy  # type: ignore[method-assign]
        answer = ladder.answer(REQUEST, USERS[3])
        rungs.append(answer.degraded["rung"] if answer.degraded else "full")
    assert rungs[:2] == ["full", "full"]  # late, and now it is known: about 72 ms, of which half more is expected
    assert rungs[2] == "light"
    assert rungs[-1] == "full"


def test_one_cold_start_costs_no_rung(recommender: Recommender) -> None:
    clock = Clock()
    ladder = ladder_of(recommender, clock=clock)
    retrieve = recommender.retrieve
    recommender.retrieve = slowed(retrieve, clock, 300)  # type: ignore[method-assign]
    assert ladder.answer(REQUEST, USERS[3]).degraded is not None  # too late for the rankers
    recommender.retrieve = retrieve  # type: ignore[method-assign]
    assert ladder.answer(REQUEST, USERS[3]).degraded is None


def test_a_spent_budget_answers_from_the_list_at_once(recommender: Recommender) -> None:
    answer = ladder_of(recommender).answer(REQUEST, USERS[3], budget_ms=0)
    assert answer.degraded is not None
    assert answer.degraded["rung"] == "cached"
    check(answer, recommender)


def test_a_dead_dependency_is_left_alone_and_found_again_within_ten_seconds(recommender: Recommender) -> None:
    clock, calls = Clock(), []
    down = True

    def retriever(query: Query, side: UserSide, timeout_seconds: float) -> Candidates:
        calls.append(clock.now)
        if down:
            raise OSError("gone")
        return recommender.retrieve(query, side)

    ladder = ladder_of(recommender, clock=clock, retriever=retriever)
    for _ in range(50):
        check(ladder.answer(REQUEST, USERS[3]), recommender)
    assert len(calls) == 3  # then the circuit is open
    down = False
    clock.now += 2
    assert ladder.answer(REQUEST, USERS[3]).degraded is None
    assert ladder.stages.breakers["retrieval"].state == "closed"


def test_one_users_failure_costs_nobody_else_the_rung(recommender: Recommender) -> None:
    ladder, retrieve = ladder_of(recommender), recommender.retrieve

    def picky(query: Query, side: Any) -> Candidates:
        if query.request.user_id == "u03":
            raise ValueError("broken state")
        return retrieve(query, side)

    recommender.retrieve = picky  # type: ignore[method-assign]
    for _ in range(10):
        assert ladder.answer(REQUEST, USERS[3]).degraded is not None
        assert ladder.answer(Request("u04", 10, DAY), USERS[4]).degraded is None


def test_the_stages_elsewhere_give_the_same_list(recommender: Recommender, folder: Path) -> None:
    other = Recommender(load_tiny(folder), system())

    def retriever(query: Query, side: UserSide, timeout_seconds: float) -> Candidates:
        assert 0 < timeout_seconds <= 0.03
        return other.retrieve(query, side)

    def ranker(query: Query, side: UserSide, pool: Candidates, timeout_seconds: float) -> Scores:
        assert 0 < timeout_seconds <= 0.05
        return other.scoring.rank(query, side, pool)

    split = ladder_of(recommender, retriever=retriever, ranker=ranker)
    for user in range(len(USERS)):
        request = Request(USERS[user].user_id, 10, DAY, "r")
        answer = split.answer(request, USERS[user])
        assert answer.degraded is None
        assert answer.items == recommender.recommend(request, USERS[user]).items


def test_a_ranking_server_that_is_gone_costs_the_ranking_only(recommender: Recommender) -> None:
    answer = ladder_of(recommender, ranker=fail).answer(REQUEST, USERS[3])
    assert answer.degraded is not None
    assert answer.degraded["rung"] == "cached"
    check(answer, recommender)


@pytest.mark.parametrize("k", [1, 10, 237])
def test_every_rung_fills_the_list_that_is_asked_for(recommender: Recommender, k: int) -> None:
    recommender.retrieve = fail  # type: ignore[method-assign]
    assert len(ladder_of(recommender).answer(Request("u03", k, DAY), USERS[3]).items) == k


def test_a_recommender_put_in_place_within_a_request_serves_from_the_next_one_on(recommender: Recommender, folder: Path) -> None:
    ladder = ladder_of(recommender)
    other = Recommender(load_tiny(folder), system())
    other.arrange = fail  # type: ignore[method-assign]
    light = recommender.scoring.light

    def swapped(*args: Any) -> Any:
        ladder.recommender = other
        return light(*args)

    recommender.scoring.light = swapped  # type: ignore[method-assign]
    check(ladder.answer(REQUEST, USERS[3]), recommender)


async def test_a_stage_elsewhere_may_be_awaited_but_not_answered_at_once(recommender: Recommender, folder: Path) -> None:
    other = Recommender(load_tiny(folder), system())

    async def retriever(query: Query, side: UserSide, timeout_seconds: float) -> Candidates:
        await asyncio.sleep(0)
        return other.retrieve(query, side)

    ladder = ladder_of(recommender, retriever=retriever)
    assert (await ladder.answered(REQUEST, USERS[3])).items == recommender.recommend(REQUEST, USERS[3]).items
    with pytest.raises(RuntimeError, match="elsewhere"):
        ladder.answer(REQUEST, USERS[3])
