"""Lists of only some items hold only those, whatever else is asked for, whoever asks and whatever fails; and as many as there are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from serving.bundle.bundle import Bundle
from serving.messages import Only
from serving.query import Request
from serving.recommender import Recommender
from serving.resilience.cache import Caches
from serving.resilience.ladder import Ladder
from serving.restriction import NotInCatalogue, check
from serving.rules.specs import rule
from serving.state.user_state import UserState
from tests.serving.resilience.test_breaker import Clock
from tests.serving.resilience.test_never_shown import BROKEN, hiding
from tests.serving.tiny_bundle import BRANDS, CATEGORIES, DAY, ITEMS, load_tiny, states, system

USERS = states()
NUMBERS = range(ITEMS)
BARRED = {237, 238, 239}
PRICES = st.integers(90, 350).map(lambda cents: cents / 100)  # as a client writes them
PATHS = [*(f"D{n}" for n in range(3)), *(f"D > C{n}" for n in range(CATEGORIES)), *(f"D > C > T{n}" for n in range(2 * CATEGORIES))]
ONLY = st.builds(
    Only,
    category=st.lists(st.sampled_from(PATHS), max_size=3).map(tuple),
    brand=st.lists(st.sampled_from([f"brand {n}" for n in range(1, BRANDS)]), max_size=2).map(tuple),
    price_from=st.none() | PRICES,
    price_to=st.none() | PRICES,
    newer_than_days=st.none() | st.sampled_from([1.0, 9.0, 11.0, 600.0]),
    items=st.lists(st.sampled_from([*(f"i{n:03}" for n in NUMBERS), "unknown"]), max_size=12).map(tuple),
)


def is_asked_for(number: int, only: Only) -> bool:
    """The slow reference, from how the tiny bundle is made."""
    paths = {f"D{number % 3}", f"D > C{number % CATEGORIES}", f"D > C > T{number % (2 * CATEGORIES)}"}
    price, age = np.float32(1 + number / 100), 10 if number % 10 == 9 else 500
    return (
        (not only.category or bool(paths & set(only.category)))
        and (not only.brand or f"brand {number % BRANDS}" in only.brand)
        and (only.price_from is None or price >= np.float32(only.price_from))
        and (only.price_to is None or price <= np.float32(only.price_to))
        and (only.newer_than_days is None or age < only.newer_than_days)
        and (not only.items or f"i{number:03}" in only.items)
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_tiny(tmp_path_factory.mktemp("bundle"))


def numbers(answer: Any) -> list[int]:
    return [int(item.item_id[1:]) for item in answer.items]


@pytest.mark.parametrize("broken", BROKEN)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    only=ONLY, user=st.integers(0, len(USERS)), k=st.sampled_from([1, 10, 60, 240]), discover=st.booleans(),
    left_out=st.sets(st.integers(0, ITEMS - 1), max_size=40), hidden=st.sets(st.integers(0, ITEMS - 1), max_size=5),
)  # fmt: skip
def test_a_restricted_list_holds_only_what_was_asked_for_and_as_many_as_there_are(
    bundle: Bundle, broken: str, only: Only, user: int, k: int, discover: bool, left_out: set[int], hidden: set[int]
) -> None:
    ladder = Ladder(Recommender(bundle, system()), caches=Caches("digest", Clock()), clock=Clock())
    BROKEN[broken][0](ladder)
    state = USERS[user] if user < len(USERS) else UserState("stranger")
    had = {user, user + 12, user + 24} if user < len(USERS) else set()
    state = hiding(state, [f"i{n:03}" for n in hidden])
    request = Request(state.user_id, k, DAY, discover=discover, only=only, leave_out=tuple(f"i{n:03}" for n in left_out))
    wanted = {n for n in NUMBERS if is_asked_for(n, only)} - BARRED - left_out - hidden - (had if discover else set())
    shown = numbers(ladder.answer(request, state))
    assert len(set(shown)) == len(shown)
    assert set(shown) <= wanted
    assert len(shown) == min(k, len(wanted))


@pytest.mark.parametrize("pins", [(), (rule("pin", item_id="i100"),)])
def test_a_pin_is_left_out_too(bundle: Bundle, pins: tuple[Any, ...]) -> None:
    made = replace(system(), rules=(*system().rules, *pins))
    ladder = Ladder(Recommender(bundle, made), clock=Clock())
    request = Request("u01", 10, DAY)
    assert (100 in numbers(ladder.answer(request, USERS[1]))) == bool(pins)
    assert 100 not in numbers(ladder.answer(structs.replace(request, leave_out=("i100",)), USERS[1]))
    assert 100 not in numbers(ladder.answer(structs.replace(request, only=Only(category=("D > C1",))), USERS[1]))


def test_items_of_ones_own_are_ranked_as_the_rankers_would(bundle: Bundle) -> None:
    """The whole pool, ranked and without rules, is the slow reference: what was asked for stands in its order."""
    recommender = Recommender(bundle, replace(system(), rules=(), pool_size=ITEMS, light_size=ITEMS))
    asked = tuple(f"i{n:03}" for n in (200, 3, 15, 77, 100, 120))
    request = Request("u03", 6, DAY, only=Only(items=asked))
    answer = recommender.recommend(request, USERS[3])
    assert {item.item_id for item in answer.items} == set(asked)
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert answer.items[0].item_id in ("i003", "i015")  # what this user has had


def test_a_restricted_question_neither_reads_nor_leaves_cached_lists(bundle: Bundle) -> None:
    caches = Caches("digest", Clock())
    ladder = Ladder(Recommender(bundle, system()), caches=caches, clock=Clock())
    request = Request("u01", 10, DAY)
    before = numbers(ladder.answer(request, USERS[1]))
    ladder.answer(structs.replace(request, only=Only(category=("D0",))), USERS[1])
    ladder.answer(structs.replace(request, leave_out=("i001",)), USERS[1])
    assert caches.counters()["pools"]["hits"] == 0
    assert numbers(ladder.answer(request, USERS[1])) == before
    assert caches.counters()["pools"]["hits"] == 1


@pytest.mark.parametrize(
    ("only", "field"),
    [(Only(category=("D > C99",)), "only.category"), (Only(brand=("Acme",)), "only.brand"), (Only(brand=("unknown",)), "only.brand")],
)
def test_a_name_that_the_catalogue_lacks_is_refused_by_name(bundle: Bundle, only: Only, field: str) -> None:
    with pytest.raises(NotInCatalogue, match=r"the catalogue has no (category|brand) ") as refused:
        check(only, bundle.catalogue)
    assert refused.value.field == field
