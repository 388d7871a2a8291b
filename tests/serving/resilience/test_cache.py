"""A cached value ends with its hour, with its version, with the user's event, with the bundle."""

from pathlib import Path

import pytest

from serving.query import Request
from serving.recommender import Recommender
from serving.resilience.cache import Caches, TtlCache
from tests.serving.resilience.test_breaker import Clock
from tests.serving.resilience.test_ladder import ladder_of
from tests.serving.tiny_bundle import DAY, load_tiny, states, system

USERS = states()


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(load_tiny(tmp_path_factory.mktemp("bundle")), system())


def test_a_value_lives_for_its_time_and_for_its_version() -> None:
    clock = Clock()
    cache: TtlCache[str] = TtlCache(10, clock, ttl_seconds=60)
    cache.put("u", "pool", version=1)
    clock.now = 59.9
    assert cache.get("u", 1) == "pool"
    assert cache.get("u", 2) is None  # and another version ends it
    assert cache.get("u", 1) is None
    cache.put("u", "pool", version=1)
    clock.now += 60
    assert cache.get("u", 1) is None
    assert (cache.hits, cache.misses) == (1, 3)


def test_a_clock_that_went_back_serves_nothing_old() -> None:
    clock = Clock()
    clock.now = 100.0
    cache: TtlCache[str] = TtlCache(10, clock)
    cache.put("u", "pool")
    clock.now = 50.0
    assert cache.get("u") is None


def test_the_least_recently_used_goes_first() -> None:
    cache: TtlCache[int] = TtlCache(2, Clock())
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.evictions) == (1, None, 3, 1)


def test_a_pool_is_used_again_until_an_event_of_the_user(recommender: Recommender) -> None:
    caches = Caches(recommender.bundle.digest, Clock())
    ladder = ladder_of(recommender, caches=caches)
    request = Request("u03", 10, DAY)
    first = ladder.answer(request, USERS[3])
    assert ladder.answer(request, USERS[3]).items == first.items
    assert (caches.pools.hits, caches.pools.misses) == (1, 1)
    ladder.user_changed("u03")
    ladder.answer(request, USERS[3])
    assert (caches.pools.hits, caches.pools.misses) == (1, 2)
    assert caches.counters()["pools"] == {"hits": 1, "misses": 2, "evictions": 0, "entries": 1}


def test_a_changed_state_or_another_question_never_gets_the_old_pool(recommender: Recommender) -> None:
    caches = Caches(recommender.bundle.digest, Clock())
    ladder, plain = ladder_of(recommender, caches=caches), ladder_of(recommender)
    request = Request("u03", 10, DAY)
    clicked = USERS[3].with_session_event(int(recommender.catalogue.keys[100]), "add_to_cart", DAY - 0.001)
    late = USERS[3].with_positive(int(recommender.catalogue.keys[3]), DAY - 50)  # of an item had since: no length, no latest day changes
    for asked, state in (
        (request, USERS[3]),
        (request, late),
        (request, clicked),
        (Request("u03", 10, DAY, discover=True), USERS[3]),
        (request, USERS[3]),
    ):
        assert ladder.answer(asked, state).items == plain.answer(asked, state).items
    assert caches.pools.hits == 0


def test_an_hour_later_the_pool_is_old_but_the_scores_are_of_now(recommender: Recommender, tmp_path: Path) -> None:
    clock = Clock()
    ladder = ladder_of(recommender, caches=Caches(recommender.bundle.digest, clock))
    ladder.answer(Request("u03", 10, DAY), USERS[3])
    answer = ladder.answer(Request("u03", 10, DAY + 0.02), USERS[3])
    assert answer.trace.pool_day == DAY
    clock.now = 3600.0
    assert ladder.answer(Request("u03", 10, DAY + 0.05), USERS[3]).trace.pool_day == DAY + 0.05
