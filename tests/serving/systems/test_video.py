"""The video home page's own rules: what every answer keeps, on every rung and over any catalogue, and which gives way first.

Not watched, nothing flagged, at most 2 of a channel, at least 3 uploaded within a day, at most 5 of a category, exactly 20.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.schema import POLICY_FLAGS
from serving.bundle.bundle import Bundle
from serving.bundle.catalogue import Catalogue
from serving.query import Answer, Request
from serving.recommender import Recommender
from serving.resilience.cache import Caches
from serving.resilience.ladder import Ladder
from serving.rules.arrange import Rules
from serving.rules.slate import Arranged, Move, Ranked
from serving.system import load_system
from tests.serving.resilience.test_breaker import Clock
from tests.serving.resilience.test_never_shown import BROKEN
from tests.serving.tiny_bundle import DAY, ITEMS, catalogue, load_tiny, states, system

VIDEO = load_system("video")
PAGE, CHANNEL, FRESH, CATEGORY = 20, 2, 3, 5
BARRED = sum(1 << POLICY_FLAGS.index(flag) for flag in ("recalled", "adult", "blocked"))
USERS = states()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_tiny(tmp_path_factory.mktemp("bundle"))


def library(seed: int, channels: int, categories: int, fresh: float, flagged: float) -> Catalogue:
    """The tiny bundle's items, as videos of so many channels and categories, some uploaded today, some flagged."""
    random = np.random.default_rng(seed)
    category = np.array(catalogue().category)
    category[:, 1] = 4 + random.integers(0, categories, ITEMS)
    return replace(
        catalogue(),
        brand=(1 + random.integers(0, channels, ITEMS)).astype(np.int32),
        brand_names=("unknown", *(f"channel {n}" for n in range(channels))),
        category=category,
        created_day=np.where(random.random(ITEMS) < fresh, DAY - random.random(ITEMS), DAY - 400),
        flags=np.where(random.random(ITEMS) < flagged, 1 << random.integers(0, 4, ITEMS), 0).astype(np.uint8),
    )


def most(codes: np.ndarray) -> int:
    return int(np.bincount(codes).max())


def gave_way(moves: tuple[Move, ...]) -> set[str]:
    return {move.rule for move in moves if move.what == "gave way"}


def held(answer: Answer, items: Catalogue, rows: list[int]) -> None:
    """What no rung may lack, and of the rest what its trace does not say gave way."""
    said = gave_way(answer.trace.moves)
    assert len(set(rows)) == len(rows) == PAGE
    assert not (items.flags[rows] & BARRED).any()
    if "at_most" not in said:
        assert most(items.brand[rows]) <= CHANNEL
        assert most(items.category[rows, 1]) <= CATEGORY
    if "at_least" not in said:
        assert np.count_nonzero(items.created_day[rows] > DAY - 1) >= FRESH
    had = items.rows_of_keys(USERS[USERS.index(answer.trace.query.request.user_id)].keys)
    assert "not_seen" in said or not set(had.tolist()) & set(rows)


@pytest.mark.parametrize("broken", [name for name in BROKEN if name != "arranging"])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99), channels=st.integers(1, 60), categories=st.integers(1, 12), user=st.integers(0, len(USERS) - 1),
    fresh=st.sampled_from([0.0, 0.02, 0.2]), flagged=st.sampled_from([0.0, 0.3]),
)  # fmt: skip
def test_every_rung_keeps_the_rules_or_says_which_gave_way(
    bundle: Bundle, broken: str, seed: int, channels: int, categories: int, user: int, fresh: float, flagged: float
) -> None:
    items = library(seed, channels, categories, fresh, flagged)
    asked = replace(system(), answer_size=PAGE, rules=VIDEO.rules)
    ladder = Ladder(Recommender(bundle, asked, catalogue=items), caches=Caches("digest", Clock()), clock=Clock())
    BROKEN[broken][0](ladder)
    answer = ladder.answer(Request(USERS[user].user_id, PAGE, DAY), USERS[user])
    held(answer, items, [item.row for item in answer.items])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), user=st.integers(0, len(USERS) - 1))
def test_where_the_pool_has_enough_of_everything_nothing_gives_way(bundle: Bundle, seed: int, user: int) -> None:
    items = library(seed, 60, 12, 0.1, 0.1)
    answer = Recommender(bundle, replace(system(), answer_size=PAGE, rules=VIDEO.rules), catalogue=items).recommend(
        Request(USERS[user].user_id, PAGE, DAY), USERS[user]
    )
    assert gave_way(answer.trace.moves) == set()
    held(answer, items, [item.row for item in answer.items])


def arranged(items: Catalogue, rows: list[int], seen: tuple[int, ...] = ()) -> Arranged:
    """These videos, best first, under the system's rules."""
    ranked = Ranked(np.array(rows, np.int32), np.linspace(1, 0.5, len(rows), dtype=np.float32), np.isin(rows, seen))
    return Rules(VIDEO.rules, items, PAGE).arrange(ranked, Request("u", PAGE, DAY))


def of(channel: dict[int, int] | None = None, new: tuple[int, ...] = (), flagged: tuple[int, ...] = ()) -> Catalogue:
    """Every video of a channel and category of its own (as far as 60 channels and 24 categories reach), but for those named."""
    numbers = np.arange(ITEMS)
    brand = 1 + numbers % 60
    for row, code in (channel or {}).items():
        brand[row] = code
    category = np.array(catalogue().category)
    category[:, 1] = 4 + numbers % 24
    return replace(
        catalogue(), brand=brand.astype(np.int32), category=category, flags=np.where(np.isin(numbers, flagged), BARRED, 0).astype(np.uint8),
        created_day=np.where(np.isin(numbers, new), DAY - 0.5, DAY - 400),
    )  # fmt: skip


def test_floors_give_way_before_caps() -> None:
    """Four were uploaded today, all by one channel: two of them are shown, and it is said that a third was wanted."""
    items = of({50: 7, 51: 7, 52: 7, 53: 7}, new=(50, 51, 52, 53))
    found = arranged(items, [*range(7, 30), 50, 51, 52, 53])
    assert len(set(found.rows.tolist()) & {50, 51, 52, 53}) == CHANNEL
    assert gave_way(found.moves) == {"at_least"}
    assert len(found.rows) == PAGE


def test_caps_give_way_before_what_was_watched_is_shown_again() -> None:
    """Fifteen videos of a channel each, six of one channel, and ten that were watched: five of the six are shown, none watched."""
    items = of(dict.fromkeys(range(40, 46), 59), new=(0, 1, 2))
    found = arranged(items, [*range(100, 110), *range(15), *range(40, 46)], seen=tuple(range(100, 110)))
    assert len(found.rows) == PAGE
    assert gave_way(found.moves) == {"at_most"}
    assert not set(found.rows.tolist()) & set(range(100, 110))
    assert len(set(found.rows.tolist()) & set(range(40, 46))) == 5


def test_what_was_watched_fills_a_page_before_it_is_short() -> None:
    items = of(new=(0, 1, 2))
    found = arranged(items, [*range(15), *range(100, 110)], seen=tuple(range(100, 110)))
    assert len(found.rows) == PAGE
    assert found.rows[:15].tolist() == list(range(15))
    assert gave_way(found.moves) == {"not_seen"}


def test_policy_never_gives_way() -> None:
    items = of(flagged=tuple(range(10)))
    found = arranged(items, list(range(25)))
    assert sorted(found.rows.tolist()) == list(range(10, 25))  # a short list of the pool; the recommender fills it from elsewhere
