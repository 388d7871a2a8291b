"""The compiled loops beside numpy: the same bits at every step of a request, and the same lists with and without them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.names import TAUS_DAYS
from feature_repo.schema import EVENT_TYPES
from serving.bundle.bundle import Bundle
from serving.event_meanings import type_code
from serving.native import kernel
from serving.objectives import Objective
from serving.query import Candidates, History, Hits, Query, Request
from serving.ranking.features import cross_features, request_features
from serving.ranking.heads import Heads
from serving.ranking.layers import Layers
from serving.ranking.rankers import UserSide
from serving.recommender import Recommender
from serving.retrieval.buy_again import BuyAgain, Habits
from serving.retrieval.fusion import fuse
from serving.retrieval.int8_scan import products
from serving.retrieval.linear import Linear, Neighbours
from serving.retrieval.reasons import known
from serving.retrieval.top_k import descending, select
from serving.retrieval.two_tower import TowerTable, TwoTower
from serving.state.user_state import StateTable, UserState
from serving.system import SourceSpec, load_system
from tests.bench.synthetic import Sizes, write_synthetic
from tests.serving import tiny_bundle

pytestmark = pytest.mark.skipif(not kernel.native(), reason="the native kernel was not compiled here")
CATALOGUE = tiny_bundle.catalogue()
LEARNING = tiny_bundle.system().learning
SEEDS = st.integers(0, 2**32 - 1)
TYPES = [type_code(name) for name in EVENT_TYPES]


@contextmanager
def pure() -> Iterator[None]:
    kernel.use(False)
    try:
        yield
    finally:
        kernel.use(True)


def both(function: Callable[[], Any]) -> tuple[Any, Any]:
    """What it gives with the loops, and without them."""
    found = function()
    with pure():
        return found, function()


def user(random: np.random.Generator) -> UserState:
    """Anybody: with and without history and session, with items the catalogue lacks."""
    count, clicks = int(random.integers(0, 60)), int(random.integers(0, 6))
    known = random.choice(CATALOGUE.keys, count, replace=False)
    keys = np.sort(np.where(random.random(count) < 0.9, known, random.integers(2**63, size=count, dtype=np.uint64)))
    last = tiny_bundle.DAY - random.exponential(60, count)
    counts = (1 + random.poisson(1, count)).astype(np.float32)
    return UserState(
        "u", keys, last - random.exponential(60, count), last, counts, random.random((count, len(TAUS_DAYS)), np.float32) * counts[:, None],
        random.choice(CATALOGUE.keys, clicks), tiny_bundle.DAY - random.random(clicks) / 10,
        random.choice(TYPES, clicks).astype(np.uint32), place=str(random.choice(["north", "south", ""])),
    )  # fmt: skip


def asked(random: np.random.Generator, discover: bool = False) -> Callable[[], Query]:
    """The same question made anew each time: a query keeps what it has worked out."""
    state, request = user(random), Request("u", 10, tiny_bundle.DAY + 0.3, "r", discover=discover)
    return lambda: Query(request, state, CATALOGUE, LEARNING)


def assert_same(found: Any, expected: Any) -> None:
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(0, 70), st.sampled_from([1, 7, 16, 48, 64, 65, 128]))
def test_products_of_integers_are_exact_at_every_width(seed: int, items: int, width: int) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(-128, 128, (items, width), dtype=np.int8)
    vector, scales, prior = random.normal(size=width).astype(np.float32), random.random(items, np.float32), random.random(items, np.float32)
    for more in ((), (scales, prior)):
        assert_same(*both(lambda more=more: products(table, vector, *more)))


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(0, 9_000), st.integers(0, 700), st.sampled_from([-np.inf, 0.0]), st.sampled_from([1, 3, 1_000_000]))
def test_the_best_and_their_order_are_the_same(seed: int, size: int, n: int, floor: float, distinct: int) -> None:
    random = np.random.default_rng(seed)
    scores = (random.integers(-distinct, distinct, size) / 7).astype(np.float32)
    excluded = random.permutation(size)[: size // 5].astype(np.int32)
    before = scores.copy()
    assert_same(*(rows.astype(np.int32) for rows in both(lambda: select(scores, n, excluded, floor))))
    assert_same(*(rows.astype(np.int32) for rows in both(lambda: descending(scores))))
    assert_same(scores, before)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 60), st.integers(1, 9), st.sampled_from([np.uint16, np.int32]), st.booleans())
def test_votes_add_up_as_bincount_adds_them(seed: int, items: int, neighbours: int, kind: type, discover: bool) -> None:
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(CATALOGUE))[:items]).astype(np.int32)
    position = np.full(len(CATALOGUE), -1, np.int32)
    position[rows] = np.arange(items)
    to = random.integers(items, size=(items, neighbours)).astype(kind)
    weights = random.integers(-30_000, 30_000, (items, neighbours), dtype=np.int16)
    source = Linear(SourceSpec("linear", 1.0), Neighbours(rows, position, to, weights, random.random(items, np.float32), 150.0))
    query = asked(random, discover)
    found, expected = both(lambda: source.retrieve(query(), 20))
    assert_same(found.rows, expected.rows)
    assert_same(found.scores, expected.scores)
    for row in random.permutation(len(CATALOGUE))[:20].tolist():
        spoken, slow = both(lambda row=row: source.nearest(query(), row))
        rows, parts = source.contributions(query(), row)
        assert spoken == slow == (int(rows[0]) if len(rows) and parts[0] > 0 else -1)


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(0, 60), st.integers(1, 40))
def test_what_is_known_of_shown_items_is_the_same(seed: int, pool: int, shown: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.permutation(len(CATALOGUE))[:pool].astype(np.int32)
    ranks = np.where(random.random((pool, 4)) < 0.5, random.integers(0, 9, (pool, 4)), np.inf).astype(np.float32)
    candidates = Candidates(rows, ranks, ranks, rows.astype(np.float32), np.zeros(pool, bool))
    asked_for = np.concatenate((rows[:20], random.permutation(len(CATALOGUE))[:shown].astype(np.int32)))
    query = asked(random)
    found, expected = both(lambda: known(candidates, query().history_rows, asked_for))
    assert found == expected


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_what_was_had_is_ranked_the_same_items_posted_since_the_fit_among_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    source = BuyAgain(SourceSpec("buy_again", 1.0), Habits(random.random(len(CATALOGUE) // 2, np.float32), 90.0))  # knows half of the items
    query = asked(random)
    found, expected = both(lambda: source.retrieve(query(), 30))
    assert_same(found.rows, expected.rows)
    assert_same(found.scores, expected.scores)
    assert len(found.rows) == min(30, len(query().history_rows))


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.booleans(), st.floats(0, 0.3))
def test_the_search_gives_new_items_the_same_places(seed: int, discover: bool, new: float) -> None:
    random = np.random.default_rng(seed)
    table = TowerTable(
        random.integers(-127, 128, (len(CATALOGUE), 64), dtype=np.int8), random.random(len(CATALOGUE), np.float32),
        random.integers(-9, 2, len(CATALOGUE)).astype(np.float32), random.normal(size=(len(CATALOGUE), 64)).astype(np.float16), 0.15,
    )  # fmt: skip
    source = TwoTower(SourceSpec("two_tower", 1.0), table, random.random(len(CATALOGUE)) < new)
    query, vector = asked(random, discover), random.normal(size=64).astype(np.float32)
    found, expected = both(lambda: source.retrieve(query(), 150, vector))
    for part in ("rows", "scores", "values"):
        assert_same(getattr(found, part), getattr(expected, part))
    assert_same(*both(lambda: source.history_embedding(query())))


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(1, 5), st.integers(1, 120))
def test_pools_are_the_same(seed: int, sources: int, pool: int) -> None:
    random = np.random.default_rng(seed)
    hits, specs = [], []
    for s in range(sources):
        rows = random.permutation(len(CATALOGUE))[: random.integers(0, 90)].astype(np.int32)
        values = random.normal(size=int(random.integers(100, len(CATALOGUE) + 1))).astype(np.float32) if random.random() < 0.6 else None
        place = random.integers(-1, len(values), len(CATALOGUE)).astype(np.int32) if values is not None and random.random() < 0.5 else None
        hits.append(Hits(rows, -np.sort(-random.random(len(rows), np.float32)), values, place))
        specs.append(SourceSpec(f"s{s}", 1 / sources, {"weight": float(random.integers(1, 4)), "offset": float(random.integers(1, 60))}))
    query = asked(random)
    barred = ((random.random(len(CATALOGUE)) < 0.2).astype(np.uint8) * 2, 2)
    found, expected = both(lambda: fuse(hits, specs, pool, query(), barred))
    for part in ("rows", "fused", "source_ranks", "source_scores", "seen"):
        assert_same(getattr(found, part), getattr(expected, part))


def some_pool(random: np.random.Generator, query: Query, count: int, sources: int) -> Candidates:
    rows = random.permutation(len(CATALOGUE))[:count].astype(np.int32)
    had = query.history_rows[: count // 3]
    rows = np.concatenate((had, rows[~np.isin(rows, had)][: count - len(had)]))
    shape = (len(rows), sources)
    ranks = np.where(random.random(shape) < 0.5, random.integers(0, 100, shape), np.inf).astype(np.float32)
    scores = (random.normal(size=shape) * (random.random(shape) < 0.7)).astype(np.float32)
    return Candidates(rows, scores, ranks, random.random(len(rows), np.float32), np.isin(rows, query.history_rows))


@settings(deadline=None, max_examples=150)
@given(SEEDS, st.integers(0, 90), st.integers(1, 6))
def test_features_are_the_same(seed: int, count: int, sources: int) -> None:
    random = np.random.default_rng(seed)
    query = asked(random)
    pool = some_pool(random, query(), count, sources)
    assert_same(*both(lambda: cross_features(query(), pool)))
    assert_same(*both(lambda: request_features(query())))


def test_a_pool_that_is_refused_leaves_no_trace_in_the_next_ones_features() -> None:
    query = asked(np.random.default_rng(7))
    pool = some_pool(np.random.default_rng(8), query(), 40, 3)
    expected = cross_features(query(), pool)
    wrong = replace(pool, rows=np.append(pool.rows[:-1], np.int32(len(CATALOGUE))))
    with pytest.raises(ValueError, match="rows of candidates from 0 to"):
        cross_features(query(), wrong)
    fewer = replace(CATALOGUE, brand_names=CATALOGUE.brand_names[:1], category_names=CATALOGUE.category_names[:2])
    with pytest.raises(ValueError, match="codes and neighbours within"):
        cross_features(replace(query(), catalogue=fewer), pool)
    assert_same(cross_features(query(), pool), expected)


SHOP_HEADS = Heads.of({"repeat": Objective("again positive", 0.7), "discover": Objective("first positive", 0.3)})
VIDEO_HEADS = Heads.of(
    {
        "watch": Objective("watch", 0.5, loss="weighted", usual=300),
        "click": Objective("click", 0.2),
        "new": Objective("first like", 0.1),
        "again": Objective("again share", 0.7),
    }
)


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(0, 90), st.booleans(), st.booleans(), st.sampled_from([SHOP_HEADS, VIDEO_HEADS]))
def test_scores_are_the_same(seed: int, count: int, lifted: bool, chosen: bool, heads: Heads) -> None:
    random = np.random.default_rng(seed)
    at = random.permutation(count)[: count // 2].astype(np.int32) if chosen else None
    logits = random.normal(scale=9, size=(count if at is None else len(at), len(heads))).astype(np.float32)
    seen, lift = random.random(count) < 0.5, random.normal(size=count).astype(np.float32) if lifted else None
    found, expected = both(lambda: heads.scores(logits, seen, lift, at))
    assert_same(found, expected)
    if at is not None:
        assert_same(found, heads.scores(logits, seen[at], None if lift is None else lift[at]))


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 60), st.sampled_from([(5, 16, 2), (47, 64, 2), (33, 128, 64, 2), (3, 32, 16, 7, 2)]))
def test_a_rankers_layers_are_sums_in_order(seed: int, count: int, sizes: tuple[int, ...]) -> None:
    random = np.random.default_rng(seed)
    parts = [random.normal(size=(a, b)) for a, b in pairwise(sizes)]
    biases = [random.normal(size=b) for b in sizes[2:]]
    flat = np.concatenate(
        [parts[0].ravel(), *(part for pair in zip(parts[1:], biases, strict=True) for part in (pair[0].ravel(), pair[1]))]
    )
    layers = Layers(
        random.normal(size=sizes[0]).astype(np.float32), random.random(sizes[0], np.float32), flat.astype(np.float32), np.array(sizes), 5.0
    )
    halves = random.normal(size=(90, sizes[1])).astype(np.float16)
    rows, user_half = random.integers(90, size=count).astype(np.int32), random.normal(size=sizes[1]).astype(np.float32)
    cross = random.normal(size=(count, sizes[0])).astype(np.float32)
    found = layers.score(halves, rows, user_half, cross)
    if found is None:
        pytest.skip("this CPU has no loop for it")
    hidden = np.clip((cross - layers.mean) * layers.scale, -5, 5).astype(np.float64) @ parts[0] + halves[rows] + user_half
    for part, bias in zip(parts[1:], biases, strict=True):
        hidden = np.maximum(hidden, 0) @ part + bias
    np.testing.assert_allclose(found, hidden, rtol=2e-3, atol=2e-3)
    at = random.integers(count, size=count // 2).astype(np.int32)
    assert_same(layers.score(halves, rows, user_half, cross, at), found[at])
    assert not layers.agree(lambda halves, cross: np.zeros((len(cross), 2), np.float32))  # a graph that says something else


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recommender, StateTable]:
    """The shop's sources and networks over a made-up catalogue, large enough for thresholds from samples."""
    system = load_system("shop")
    sizes = Sizes(items=9_000, users=60, with_neighbours=4_500, neighbours=40, on_offer=6_000)
    bundle, users = write_synthetic(system, tmp_path_factory.mktemp("kernel"), sizes)
    return Recommender(Bundle.load(bundle), system), StateTable.load(users)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.floats(0, 1))
def test_the_users_side_is_the_graphs_to_the_bit(shop: tuple[Recommender, StateTable], seed: int, missing: float) -> None:
    rankers, random = shop[0].rankers, np.random.default_rng(seed)
    assert rankers.user_layers is not None
    features = (random.normal(size=int(random.integers(0, rankers.request_width + 1))) * 10 ** random.uniform(-3, 3)).astype(np.float32)
    features[random.random(len(features)) < missing] = np.nan
    bag = random.normal(size=64).astype(np.float32) * (random.random() < 0.9)
    found, expected = both(lambda: rankers.user_side(features, bag))
    for part in ("light", "heavy", "vector"):
        assert_same(getattr(found, part), getattr(expected, part))


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 150), st.sampled_from(["light", "heavy"]))
def test_a_rankers_loop_is_its_graph_to_the_bit(shop: tuple[Recommender, StateTable], seed: int, count: int, name: str) -> None:
    rankers, random = shop[0].rankers, np.random.default_rng(seed)
    inputs = rankers.sessions[name].get_inputs()[1].shape[1]
    halves = (random.normal(size=(1, rankers.halves[one].shape[1])).astype(np.float32) for one in ("light", "heavy"))
    side = UserSide(np.empty(0, np.float32), *halves)
    rows = random.integers(len(rankers.halves[name]), size=count).astype(np.int32)
    cross = (random.normal(size=(count, inputs)) * 10 ** random.uniform(-2, 1)).astype(np.float32)
    at = random.permutation(count)[: count // 2 + 1].astype(np.int32)
    assert_same(*both(lambda: getattr(rankers, name)(side, rows, cross)))
    assert_same(*both(lambda: getattr(rankers, name)(side, rows, cross, at)))


@pytest.mark.parametrize("discover", [False, True])
def test_the_same_answer_to_the_bit_with_and_without_the_loops(shop: tuple[Recommender, StateTable], discover: bool) -> None:
    recommender, table = shop
    for number in range(len(table)):
        state = table[number]
        if number % 3 == 0:
            state = state.with_session_event(int(recommender.catalogue.keys[number]), "click", recommender.catalogue.cut_day)
        request = Request(state.user_id, 20, recommender.catalogue.cut_day + 0.3, str(number), discover=discover)
        found, expected = both(lambda request=request, state=state: recommender.recommend(request, state))
        assert found.items == expected.items
        for part in ("rows", "fused", "source_ranks", "source_scores", "seen"):
            assert_same(getattr(found.trace.candidates, part), getattr(expected.trace.candidates, part))
        for part in ("light", "heavy", "cross", "kept"):
            np.testing.assert_array_equal(getattr(found.trace.scores, part), getattr(expected.trace.scores, part))


def test_the_shops_rankers_run_as_loops_where_the_cpu_has_them(shop: tuple[Recommender, StateTable]) -> None:
    recommender, _ = shop
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").is_file() else set()
    assert set(recommender.rankers.layers) == ({"light", "heavy"} if flags >= {"avx2", "fma", "f16c"} else set())


def past_of(row: int) -> kernel.Past:
    nothing = np.empty(0, np.int32)
    return kernel.Past(np.array([row], np.int32), np.ones((1, 1), np.float32), np.ones(1, np.float32), nothing, nothing.astype(np.float32))


def test_what_is_outside_of_a_table_is_refused() -> None:
    weights, one = np.ones((2, 1), np.int16), np.ones(2, np.float32)
    places, nothing = np.arange(2, dtype=np.int32), np.empty(0, np.int32)
    table = Neighbours(places, places, np.array([[1], [5]], np.int32), weights, one, 150.0)
    with pytest.raises(ValueError, match="neighbours within their tables"):
        kernel.item_item(table, past_of(1), 5, 2, nothing, 2)
    with pytest.raises(ValueError, match="rows of the history from 0 to 1"):
        kernel.item_item(table, past_of(2), 5, 2, nothing, 2)
    with pytest.raises(ValueError, match="excluded rows from 0 to 1"):
        kernel.item_item(table, past_of(0), 5, 2, np.array([2], np.int32), 2)
    with pytest.raises(ValueError, match="expected 1 of logits, got 2"):
        kernel.final_scores(np.ones((2, 2), np.float32), np.ones(2, bool), None, SHOP_HEADS, np.array([1], np.int32))
    with pytest.raises(ValueError, match="positions of candidates from 0 to 1"):
        kernel.final_scores(np.ones((1, 2), np.float32), np.ones(2, bool), None, SHOP_HEADS, np.array([2], np.int32))
    with pytest.raises(ValueError, match="expected 4 of heads, got 2"):
        kernel.final_scores(np.ones((1, 2), np.float32), np.ones(1, bool), None, VIDEO_HEADS, None)
    with pytest.raises(ValueError, match="stretches of a table of 2 rows, got 1 to 3"):
        kernel.spans(np.ones((2, 8), np.int8), np.ones(8, np.float32), one, one, np.array([1]), np.array([3]))
    layers = Layers(one, one, np.ones(32, np.float32), np.array([2, 16]), 5.0)
    halves, user_half, cross = np.ones((2, 16), np.float16), np.ones(16, np.float32), np.ones((2, 2), np.float32)
    if layers.score(halves, np.zeros(2, np.int32), user_half, cross) is not None:  # this CPU has a loop for it
        for rows, at in (([0, 2], None), ([0, 1], [2]), ([0, 1], [-1])):
            with pytest.raises(ValueError, match="of candidates from 0 to 1"):
                layers.score(halves, np.array(rows, np.int32), user_half, cross, None if at is None else np.array(at, np.int32))
        with pytest.raises(ValueError, match="expected 16 of each half, got 15"):
            layers.score(halves, np.zeros(2, np.int32), user_half[:15], cross)


def test_an_array_of_another_type_or_layout_is_an_exception() -> None:
    scores = np.ones((4, 4), np.float32)
    for wrong in (scores.astype(np.float64)[0], scores[:, 0], scores, scores[0].tolist()):
        with pytest.raises((ValueError, TypeError)):
            kernel.descending(wrong)  # type: ignore[arg-type]


def test_a_weight_that_is_no_number_is_not_among_the_heaviest() -> None:
    count, items = 400, 1_000
    places, nothing = np.arange(items, dtype=np.int32), np.empty(0, np.int32)
    table = Neighbours(places, places, np.zeros((items, 4), np.uint16), np.ones((items, 4), np.int16), np.ones(items, np.float32), 150.0)
    kernel.descending(np.arange(100_000, dtype=np.float32))  # leaves positions of a larger array where the heaviest are told
    decayed = np.full((4, count), -5, np.float32)  # log(1 - 5) is no number
    decayed[:, 7] = 1
    past = kernel.Past(places[:count], decayed, np.array([1, 0, 0, 0], np.float32), nothing, nothing.astype(np.float32))
    rows, scores, _ = kernel.item_item(table, past, 128, items, nothing, 10)  # type: ignore[misc]
    assert rows.tolist() == [0]
    assert scores.tolist() == pytest.approx([4 * np.log(2)])


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_of_an_item_a_state_says_nonsense_of_nothing_is_known(seed: int) -> None:
    random = np.random.default_rng(seed)
    state = user(random)
    spoilt = random.random(len(state.keys)) < 0.3
    counts = np.where(spoilt, random.choice([np.nan, np.inf, -1], len(spoilt)), state.counts).astype(np.float32)
    left = replace(
        state, keys=state.keys[~spoilt], first_day=state.first_day[~spoilt], last_day=state.last_day[~spoilt],
        counts=state.counts[~spoilt], decayed=state.decayed[~spoilt],
    )  # fmt: skip
    for part in ("rows", "counts", "age", "span", "decayed"):
        found, slow = both(lambda part=part: getattr(History.of(replace(state, counts=counts), CATALOGUE, tiny_bundle.DAY), part))
        assert_same(found, slow)
        assert_same(found, getattr(History.of(left, CATALOGUE, tiny_bundle.DAY), part))


def test_without_the_kernel_the_callers_are_told_to_use_numpy() -> None:
    with pure():
        assert not kernel.native()
        assert kernel.descending(np.ones(1, np.float32)) is None
        assert kernel.fuse([], [], np.empty(0, np.int32), 0, 0, None, 0) is None
    assert kernel.native()
