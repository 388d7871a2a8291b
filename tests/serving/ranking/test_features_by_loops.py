"""Every feature of every candidate against loops that say the same one event at a time."""

from dataclasses import dataclass, field, replace
from math import copysign, cos, exp, inf, isfinite, log, log1p, nan, pi, sin, sqrt

import numpy as np
import pytest

from feature_repo.names import CROSS_FEATURES, TAUS_DAYS, cross_names, request_names
from serving.bundle.catalogue import Catalogue, item_key
from serving.query import Candidates, Query, Request
from serving.ranking.features import cross_features, request_features
from serving.state.user_state import UserState
from serving.system import Learning
from tests.components.retrieval.worlds import CUT_DAY, catalogue

KINDS = ("one", "two")
NAMES = cross_names(KINDS)
ITEMS = [f"{number:02d}" for number in range(14)]
LEARNING = Learning(session_weights={"click": 0.6, "like": 1.0})


@dataclass
class World:
    """A catalogue with unknown categories, brands and prices in it, what one user did, and some candidates."""

    shop: Catalogue
    bought: list[tuple[int, float]] = field(default_factory=list)  # row, day
    looked: list[tuple[int, str, float]] = field(default_factory=list)  # row, kind, day
    day: float = CUT_DAY
    place: str = "south"

    def query(self) -> Query:
        state = UserState("u", place=self.place)
        for row, day in self.bought:
            state = state.with_positive(item_key(ITEMS[row]), day)
        for row, kind, day in self.looked:
            state = state.with_session_event(item_key(ITEMS[row]), kind, day)
        return Query(Request("u", 4, self.day), state, self.shop, LEARNING)

    def days(self, row: int) -> list[float]:
        return sorted(day for had, day in self.bought if had == row)

    def weight(self, row: int, tau: float) -> float:
        return sum(exp(-(self.day - day) / tau) for day in self.days(row))

    def session(self) -> list[tuple[int, float]]:
        weighed = [(row, LEARNING.session_weights.get(kind, 0) * exp(-(self.day - day) / 0.5)) for row, kind, day in self.looked]
        return [(row, weight) for row, weight in weighed if weight > 1e-3]

    def weights(self, tau: float) -> list[tuple[int, float]]:
        return [(row, self.weight(row, tau)) for row in range(len(ITEMS)) if self.days(row)] + self.session()


def world(seed: int, bought: int = 25, looked: int = 6) -> World:
    random = np.random.default_rng(seed)
    narrow = random.integers(0, 6, len(ITEMS))  # kinds 1..5, 0 unknown
    path = np.stack([np.where(narrow > 0, level, 0) for level in (1 + narrow % 2, 3 + narrow % 3, 6 + narrow)], axis=1)
    plan = random.integers(0, 2, (1, 2, len(ITEMS))).astype(np.uint8)
    shop = catalogue(
        ITEMS, path, places=("north", "south"), brand=random.integers(0, 4, len(ITEMS)).astype(np.int32), brand_names=tuple("uabc"),
        price=np.where(random.random(len(ITEMS)) < 0.2, nan, random.choice([0.001, 0.5, 2, 90], len(ITEMS))).astype(np.float32),
        plan_display=plan, plan_mailer=1 - plan,
    )  # fmt: skip
    made = World(shop)
    made.bought = [
        (int(row), float(day)) for row, day in zip(random.integers(0, 9, bought), random.uniform(20, CUT_DAY, bought), strict=True)
    ]
    done = zip(random.integers(4, 14, looked), random.choice(["click", "like", "hide"], looked), random.uniform(0, 6, looked), strict=True)
    made.looked = [(int(row), str(kind), CUT_DAY - float(ago)) for row, kind, ago in done]
    return made


def pool(random: np.random.Generator, had: set[int]) -> Candidates:
    rows = random.permutation(len(ITEMS)).astype(np.int32)[:11]
    ranks = np.where(random.random((len(rows), 2)) < 0.4, inf, random.integers(0, 50, (len(rows), 2))).astype(np.float32)
    scores = random.normal(size=(len(rows), 2)).astype(np.float32) * np.array([3, 0.02], np.float32)
    return Candidates(rows, scores, ranks, random.random(len(rows)).astype(np.float32), np.array([int(row) in had for row in rows]))


def own(asked: World, row: int) -> dict[str, float]:
    days = asked.days(row)
    if not days:
        return {name: 0.0 for name in NAMES if name.startswith("own_") or name == "seen"}
    age, gap = asked.day - days[-1], (days[-1] - days[0]) / max(len(days) - 1, 1)
    found = {f"own_decayed_{int(tau)}": log1p(asked.weight(row, tau)) for tau in TAUS_DAYS}
    return found | {
        "own_log_count": log1p(len(days)),
        "own_log_days_since_last": log1p(age),
        "own_log_mean_gap": log1p(gap),
        "own_due": log1p(min(age / max(gap, 1), 8)) if len(days) > 1 else 0.0,
        "own_once": float(len(days) == 1),
        "seen": 1.0,
    }


def rhythm(asked: World, row: int) -> dict[str, float]:
    """Of the narrowest category."""
    code = asked.shop.category[row, 2]
    days = sorted(day for had, day in asked.bought if code and asked.shop.category[had, 2] == code)
    age = asked.day - days[-1] if days else 400.0
    gap = (days[-1] - days[0]) / max(len(days) - 1, 1) if days else 0.0
    return {
        "log_events_category_2": log1p(len(days)),
        "log_days_since_category_2": log1p(age),
        "due_category_2": log1p(min(age / max(gap, 1), 8)) if len(days) > 1 else 0.0,
    }


def shares(asked: World, row: int) -> dict[str, float]:
    found: dict[str, float] = {}
    category, brand = asked.shop.category, asked.shop.brand
    for level in range(3):
        code = category[row, level]
        for name, tau in (("share", 60.0), ("recent", 15.0)):
            each = asked.weights(tau)
            of_code = sum(weight for had, weight in each if code and category[had, level] == code)
            found[f"{name}_category_{level}"] = sqrt(of_code / max(sum(weight for _, weight in each), 1e-6))
        items = {had for had, _ in asked.bought if code and category[had, level] == code}
        found[f"log_items_category_{level}"] = log1p(len(items))
    each = asked.weights(60.0)
    of_brand = sum(weight for had, weight in each if brand[row] and brand[had] == brand[row])
    found["share_brand"] = sqrt(of_brand / sum(weight for _, weight in each))
    of_category = sum(weight for had, weight in each if category[had, 1] == category[row, 1])
    of_both = sum(weight for had, weight in each if category[had, 1] == category[row, 1] and brand[had] == brand[row])
    told = found["share_brand"] > 0 and found["share_category_1"] > 0
    found["brand_within_category"] = of_both / of_category if told else 0.0
    return found


def price(asked: World, row: int) -> dict[str, float]:
    """Beside the mean of the logs of what was paid in the category, by weight."""
    code, own_price = asked.shop.category[row, 1], float(asked.shop.price[row])
    paid = [(weight, float(asked.shop.price[had])) for had, weight in asked.weights(60.0) if code and asked.shop.category[had, 1] == code]
    paid = [(weight, log(max(value, 0.01))) for weight, value in paid if isfinite(value)]
    if not paid or not isfinite(own_price):
        return {"price_relative": 0.0, "price_known": 0.0}
    usual = sum(weight * value for weight, value in paid) / sum(weight for weight, _ in paid)
    return {"price_relative": min(max(log(max(own_price, 0.01)) - usual, -3.0), 3.0), "price_known": 1.0}


def session(asked: World, row: int) -> dict[str, float]:
    each, shop = asked.session(), asked.shop
    return {
        "session_item": log1p(sum(weight for had, weight in each if had == row)),
        "session_category_2": log1p(sum(w for had, w in each if shop.category[row, 2] and shop.category[had, 2] == shop.category[row, 2])),
        "session_brand": log1p(sum(weight for had, weight in each if shop.brand[row] and shop.brand[had] == shop.brand[row])),
    }


def plans(asked: World, row: int) -> dict[str, float]:
    place = asked.shop.places.index(asked.place) if asked.place in asked.shop.places else -1
    here = place >= 0 and CUT_DAY <= asked.day < CUT_DAY + 7
    plan = {"display_here": asked.shop.plan_display, "mailer_here": asked.shop.plan_mailer}
    return {name: float(here and codes[0, place, row] != 0) for name, codes in plan.items()}


def of_sources(given: Candidates, at: int) -> dict[str, float]:
    found = {
        "fused": 60 * float(given.fused[at]),
        "fused_relative": float(given.fused[at] / given.fused.max()),
        "sources": float(sum(isfinite(rank) for rank in given.source_ranks[at])),
    }
    for s, kind in enumerate(KINDS):
        score, greatest = float(given.source_scores[at, s]), float(np.abs(given.source_scores[:, s]).max())
        found[f"score_{kind}"] = copysign(log1p(abs(score)), score)
        found[f"relative_{kind}"] = copysign(log1p(1000 * abs(score) / greatest), score)
        found[f"rank_{kind}"] = 60 / (60 + float(given.source_ranks[at, s]))
    return found


WORLDS = {
    "anybody": world(0),
    "another": world(1),
    "a long history": world(2, bought=80),
    "without a session": world(3, looked=0),
    "with nothing but a session": world(4, bought=0, looked=9),
    "who had little": world(5, bought=2),
    "whose store is not known": replace(world(6), place="elsewhere"),
    "asked about the week after": replace(world(7), day=CUT_DAY + 7.0),
}


@pytest.mark.parametrize("name", WORLDS)
def test_every_feature_of_every_candidate_is_what_the_loops_say(name: str) -> None:
    asked = WORLDS[name]
    query = asked.query()
    given = pool(np.random.default_rng(9), {row for row, _ in asked.bought})
    found = cross_features(query, given)
    for at, row in enumerate(given.rows.tolist()):
        expected = own(asked, row) | rhythm(asked, row) | shares(asked, row) | price(asked, row)
        expected |= plans(asked, row) | session(asked, row) | of_sources(given, at)
        assert set(NAMES) <= set(expected)
        for column, feature in enumerate(NAMES):
            assert found[at, column] == pytest.approx(expected[feature], rel=2e-4, abs=2e-5), (feature, row)


def test_of_somebody_who_did_nothing_all_that_is_told_of_their_taste_is_zero() -> None:
    nobody = World(world(0).shop)
    found = cross_features(nobody.query(), pool(np.random.default_rng(9), set()))
    columns = [column for column, name in enumerate(NAMES) if column < CROSS_FEATURES.index("display_here")]
    assert not found[:, columns].any()


def test_a_pool_without_any_score_has_none_and_does_not_divide_by_it() -> None:
    rows = np.arange(3, dtype=np.int32)
    nothing = Candidates(rows, np.zeros((3, 2), np.float32), np.full((3, 2), inf, np.float32), np.zeros(3, np.float32), np.zeros(3, bool))
    found = cross_features(world(0).query(), nothing)[:, CROSS_FEATURES.index("fused") :]
    assert found.tolist() == [[0.0] * found.shape[1]] * 3


@pytest.mark.parametrize(("hours", "weekday"), [(0, 0), (6, 0), (9, 3), (15, 6)])
def test_a_request_is_told_by_the_hour_the_weekday_and_what_is_known(hours: int, weekday: int) -> None:
    monday = 19_723.0  # 2024-01-01
    day = monday + weekday + hours / 24
    made = World(world(0).shop, bought=[(1, day - 10), (1, day - 4), (2, day - 3)], looked=[(3, "click", day - 0.1)], day=day)
    state = replace(made.query().state, created_day=day - 20, features=np.array([7, 8], np.float32))
    query = Query(Request("u", 4, day), state, made.shop, LEARNING)
    angle, week = 2 * pi * hours / 24, 2 * pi * (weekday + hours / 24) / 7
    recent = exp(-10 / 15) + exp(-4 / 15) + exp(-3 / 15)
    told = [sin(angle), cos(angle), sin(week), cos(week), 1, log1p(2), log1p(3), log1p(recent), log1p(3), log1p(1), log1p(20), 7, 8]
    assert request_features(query) == pytest.approx(told, rel=1e-4, abs=1e-5)
    assert len(told) == len(request_names(("one", "two")))


def test_of_a_stranger_a_request_says_that_nothing_is_known() -> None:
    asked = Query(Request("u", 4, 19_723.0), UserState("u"), world(0).shop, LEARNING)
    assert request_features(asked) == pytest.approx([0, 1, 0, 1, 0, 0, 0, 0, log1p(400), 0, 0], abs=1e-5)
