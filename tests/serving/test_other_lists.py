"""Items like one, and what most had: against slow references on the tiny bundle, on every rung, and told again from the log."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.bundle.bundle import Bundle
from serving.exposures.explain import explain, replay
from serving.exposures.log import ExposureLog, Keeping
from serving.exposures.tables import read_shown
from serving.messages import Only
from serving.query import Answer, Request
from serving.recommender import Recommender
from serving.resilience.ladder import Ladder
from serving.restriction import NotInCatalogue
from serving.retrieval.two_tower import TowerTable, TwoTower, two_tower
from serving.rules.bars import SAFETY
from serving.state.user_state import UserState
from tests.serving.resilience.test_breaker import Clock
from tests.serving.resilience.test_never_shown import fail, hiding
from tests.serving.tiny_bundle import CATEGORIES, DAY, ITEMS, NEIGHBOURS, load_tiny, states, system

USERS, NOBODY = states(), UserState("")
BARRED = {237, 238, 239}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_tiny(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def ladder(bundle: Bundle) -> Ladder:
    return Ladder(Recommender(bundle, system()), clock=Clock())


def numbers(answer: Answer) -> list[int]:
    return [int(item.item_id[1:]) for item in answer.items]


def similar(number: int, k: int = 10, **more: Any) -> Request:
    return Request(more.pop("user_id", ""), k, DAY, similar_to=f"i{number:03}", **more)


def popular(k: int = 10, **more: Any) -> Request:
    return Request("", k, DAY, popular=True, **more)


@pytest.mark.parametrize("number", [0, 5, 100, 216, 230, 237, 239])
def test_similar_items_are_the_exact_neighbours(ladder: Ladder, number: int) -> None:
    expected = [n for n in ((number + step) % ITEMS for step in range(1, NEIGHBOURS + 1)) if n not in BARRED]
    answer = ladder.answer(similar(number), NOBODY)
    assert numbers(answer) == expected[:10]
    assert answer.degraded is None
    assert {item.sources for item in answer.items} == {("linear",)}
    assert {item.reason for item in answer.items} == {f"Often bought with Thing {number}"}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 49), st.integers(1, 20), st.integers(0, 2**32 - 1), st.sets(st.integers(0, 49), max_size=10))
def test_the_towers_neighbours_are_those_of_the_greatest_cosine(row: int, n: int, seed: int, excluded: set[int]) -> None:
    made = np.random.default_rng(seed)
    vectors = made.integers(-127, 128, (50, 8)).astype(np.int8)
    vectors[np.arange(50), made.integers(0, 8, 50)] = 127  # as exported: one scale a row
    scales = (made.random(50, np.float32) + np.float32(0.5)) / 127
    tower = TwoTower(two_tower(share=1.0), TowerTable(vectors, scales, made.random(50, np.float32), np.zeros((50, 8), np.float16), 0.1))
    whole = vectors.astype(np.float64) * scales[:, None]
    cosine = whole @ whole[row] / np.linalg.norm(whole, axis=1) / np.linalg.norm(whole[row])
    hits = tower.alike(row, n, np.array(sorted(excluded), np.int32))
    allowed = np.array([other for other in range(50) if other != row and other not in excluded])
    assert set(hits.rows.tolist()) <= set(allowed.tolist())
    assert np.allclose(cosine[hits.rows], np.sort(cosine[allowed])[::-1][:n], atol=1e-5)
    assert np.allclose(hits.scores, cosine[hits.rows], atol=1e-5)


def test_an_item_that_nobody_had_with_others_is_answered_by_its_category(bundle: Bundle, ladder: Ladder) -> None:
    for source in ladder.recommender.sources:
        if source.spec.kind == "linear":
            table = source.table  # type: ignore[attr-defined]
            lonely = replace(source, table=replace(table, position_of=np.where(np.arange(ITEMS) == 30, -1, table.position_of)))  # type: ignore[type-var]
    sources = [lonely if source.spec.kind == "linear" else source for source in ladder.recommender.sources]
    answer = Ladder(Recommender(bundle, system(), sources=sources), clock=Clock()).answer(similar(30, 30), NOBODY)
    narrowest = [n for n in range(ITEMS) if n % (2 * CATEGORIES) == 30 % (2 * CATEGORIES) and n != 30 and n not in BARRED]
    wider = [n for n in range(ITEMS) if n % CATEGORIES == 30 % CATEGORIES and n != 30 and n not in BARRED and n not in narrowest]
    assert numbers(answer)[: len(narrowest) + len(wider)] == narrowest + wider  # popular there: the tiny bundle's order
    assert answer.degraded is not None
    assert answer.degraded["rung"] == "popular"
    assert answer.items[0].reason == "Popular in T6"


def test_popular_is_of_the_region_and_of_what_is_asked_for(ladder: Ladder) -> None:
    everyone = [n for n in range(ITEMS) if n not in BARRED]
    assert numbers(ladder.answer(popular(20), NOBODY)) == everyone[:20]
    assert numbers(ladder.answer(popular(20, region="west"), NOBODY)) == everyone[::-1][:20]
    assert numbers(ladder.answer(popular(20, region="nowhere"), NOBODY)) == everyone[:20]
    answer = ladder.answer(popular(20, region="west", only=Only(category=("D > C4",))), NOBODY)
    assert numbers(answer) == [n for n in everyone[::-1] if n % CATEGORIES == 4]
    assert {item.sources for item in answer.items} == {("trending",)}
    assert {item.reason for item in answer.items} == {"Popular near you"}
    assert answer.degraded is None


def all_fail(ladder: Ladder, what: str) -> None:
    for source in ladder.recommender.sources:
        vars(source)[what] = fail


RUNGS = {
    "nothing": (lambda _: None, ("full", "full")),
    "votes": (lambda ladder: all_fail(ladder, "alike"), ("popular", "full")),
    "counts": (lambda ladder: all_fail(ladder, "counted"), ("full", "popular")),
    "both": (lambda ladder: (all_fail(ladder, "alike"), all_fail(ladder, "counted")), ("static", "popular")),
}


@pytest.mark.parametrize("broken", RUNGS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    k=st.sampled_from([1, 10, 60, 240]), about=st.integers(0, ITEMS - 1) | st.none(), user=st.integers(0, 11), discover=st.booleans(),
    category=st.integers(0, CATEGORIES - 1) | st.none(), left_out=st.sets(st.integers(0, ITEMS - 1), max_size=9),
    hidden=st.sets(st.integers(0, ITEMS - 1), max_size=5), recalled=st.sets(st.integers(0, ITEMS - 1), max_size=5), late=st.booleans(),
)  # fmt: skip
def test_on_every_rung_a_list_holds_what_may_be_shown_and_as_many_as_there_are(
    bundle: Bundle, broken: str, k: int, about: int | None, user: int, discover: bool, category: int | None, left_out: set[int],
    hidden: set[int], recalled: set[int], late: bool,
) -> None:  # fmt: skip
    ladder = Ladder(Recommender(bundle, system()), clock=Clock())
    RUNGS[broken][0](ladder)
    ladder.recommender.rules.flags[sorted(recalled)] |= SAFETY
    more = {"discover": discover, "only": Only(category=(f"D > C{category}",)) if category is not None else None}
    more["leave_out"] = tuple(f"i{n:03}" for n in left_out)
    request = similar(about, k, user_id=f"u{user:02}", **more) if about is not None else popular(k, **more)
    answer = ladder.answer(request, hiding(USERS[user], [f"i{n:03}" for n in hidden]), None, 0.0 if late else None)
    wanted = {n for n in range(ITEMS) if category is None or n % CATEGORIES == category} - BARRED - recalled - hidden - left_out - {about}
    wanted -= {user, user + 12, user + 24} if discover else set()
    shown = numbers(answer)
    assert len(set(shown)) == len(shown) == min(k, len(wanted))
    assert set(shown) <= wanted
    assert all(item.reason and item.sources for item in answer.items)


@pytest.mark.parametrize("broken", RUNGS)
def test_a_rung_that_fails_leaves_the_next_one_and_is_named(ladder: Ladder, broken: str) -> None:
    breaks, rungs = RUNGS[broken]
    breaks(ladder)
    for request, rung in zip((similar(5), popular(region="west")), rungs, strict=True):
        answer = ladder.answer(request, NOBODY)
        assert (answer.degraded or {"rung": "full"})["rung"] == rung
        assert answer.degraded is None or "gone" in answer.degraded["reason"]


def test_the_item_asked_about_has_to_be_in_the_catalogue(ladder: Ladder) -> None:
    with pytest.raises(NotInCatalogue, match="the catalogue has no item 'i999'"):
        ladder.check(Request("", 10, DAY, similar_to="i999"))


@pytest.mark.parametrize(
    "request_", [similar(30, 25, user_id="u03"), similar(237), popular(12, region="west"), popular(300, only=Only(brand=("brand 3",)))]
)
def test_an_answer_is_told_and_made_again_from_the_log(bundle: Bundle, tmp_path: Path, request_: Request) -> None:
    log = ExposureLog(tmp_path, Keeping(sample=1.0))
    recommender = Recommender(bundle, system())
    answer = Ladder(recommender, exposures=log, clock=Clock()).answer(request_, USERS[3] if request_.user_id else NOBODY)
    log.flush()
    record = log.find("")
    assert record is not None
    assert replay(recommender, record).items == answer.items
    story = explain(recommender, record)
    assert story["about"] == request_.about
    assert [item["item_id"] for item in story["items"]] == [item.item_id for item in answer.items]
    assert story["propensity"] == 1.0
    (shown,) = read_shown(tmp_path)
    assert (shown.about, shown.user_key == 0) == (request_.about, not request_.user_id)
    assert all(item.propensity == 1.0 for item in shown.items)
    log.close()
