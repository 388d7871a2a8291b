"""What a user hid, and what was recalled for all, is in no list of any rung, whatever is asked for and whatever fails."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.bundle.bundle import Bundle
from serving.bundle.catalogue import item_key
from serving.query import Request
from serving.recommender import Recommender
from serving.resilience.cache import Caches
from serving.resilience.ladder import Ladder
from serving.rules.bars import SAFETY
from serving.state.user_state import NEVER, UserState
from tests.serving.resilience.test_breaker import Clock
from tests.serving.tiny_bundle import DAY, load_tiny, states, system

USERS = states()


def fail(*_: Any) -> Any:
    raise OSError("gone")


def light_only(ladder: Ladder) -> None:
    ladder.recommender.scoring.heavy = fail  # type: ignore[method-assign]


def no_models(ladder: Ladder) -> None:
    ladder.recommender.scoring.light = fail  # type: ignore[method-assign]


def without(*steps: str) -> Callable[[Ladder], None]:
    """The models and these rungs fail."""

    def broken(ladder: Ladder) -> None:
        no_models(ladder)
        for step in steps:
            setattr(ladder, step, lambda _: fail())

    return broken


def unarranged(ladder: Ladder) -> None:
    ladder.recommender.arrange = fail  # type: ignore[method-assign]


def wordless(ladder: Ladder) -> None:
    ladder.recommender.answer = fail  # type: ignore[method-assign]


BROKEN: dict[str, tuple[Callable[[Ladder], None], str]] = {
    "nothing": (lambda _: None, "full"),
    "the heavy ranker": (light_only, "light"),
    "the models": (no_models, "cached"),
    "the cached list too": (without("_cached"), "linear"),
    "the votes too": (without("_cached", "_linear"), "popular"),  # or static, where a region has none
    "the popular list too": (without("_cached", "_linear", "_popular"), "static"),
    "every rung": (without("_cached", "_linear", "_popular", "_static"), "static"),
    "arranging": (unarranged, "full"),
    "sentences": (wordless, "full"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_tiny(tmp_path_factory.mktemp("bundle"))


def hiding(state: UserState, items: list[str]) -> UserState:
    keys = np.array([item_key(item) for item in items], np.uint64)
    return state.with_said(keys, np.full(len(items), NEVER, np.uint8), np.full(len(items), DAY))


@pytest.mark.parametrize("broken", BROKEN)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    user=st.integers(0, len(USERS) - 1), k=st.sampled_from([1, 10, 11, 60, 237]), discover=st.booleans(),
    hidden=st.integers(0, 30), recalled=st.integers(0, 30), pooled=st.booleans(),
)  # fmt: skip
def test_what_is_hidden_or_recalled_is_in_no_list(
    bundle: Bundle, broken: str, user: int, k: int, discover: bool, hidden: int, recalled: int, pooled: bool
) -> None:
    ladder = Ladder(Recommender(bundle, system()), caches=Caches("digest", Clock()), clock=Clock())
    breaks, rung = BROKEN[broken]
    breaks(ladder)
    request = Request(USERS[user].user_id, k, DAY, discover=discover)
    before = [item.item_id for item in ladder.answer(request, USERS[user]).items]  # what it would show, and what pools and lists keep
    told, gone = before[:hidden], before[hidden : hidden + recalled]
    if not pooled:
        ladder.user_changed(USERS[user].user_id)
    rows = ladder.recommender.catalogue.rows_of_keys(np.array([item_key(item) for item in gone], np.uint64))
    ladder.recommender.rules.flags[rows] |= SAFETY  # as a safety message does
    answer = ladder.answer(request, hiding(USERS[user], told))
    shown = {item.item_id for item in answer.items}
    assert (answer.degraded or {"rung": "full"})["rung"] in ((rung, "static") if rung == "popular" else (rung,))
    assert shown.isdisjoint(told)
    assert shown.isdisjoint(gone)
    assert len(shown) == len(answer.items) > 0
