"""Frames, states and bundles spoilt at random: refused at the door by a sentence, or answered; never a wrong read.

`make sanitize` runs this and the kernel's other tests with the loops compiled under ASan and UBSan.
"""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.names import TAUS_DAYS
from serving.bundle.bundle import Bundle
from serving.native import kernel
from serving.objectives import Objective
from serving.query import Candidates, Request
from serving.ranking.heads import Heads
from serving.recommender import Recommender
from serving.split import frames
from serving.split.frames import Shape, WireError
from serving.state.user_state import StateTable, UserState
from serving.system import load_system
from tests.bench.synthetic import Sizes, write_synthetic

EXAMPLES = int(os.environ.get("SPOILT_EXAMPLES", "60"))
SEEDS = st.integers(0, 2**32 - 1)
HEADS = Heads.of({"repeat": Objective("again positive", 1.0), "discover": Objective("first positive", 0.5)})
WILD = np.array([np.nan, np.inf, -np.inf, -1, -1e-30, 0, 1e-38, 3e38, 1], np.float32)
fuzzed = settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recommender, StateTable]:
    """The shop's sources and networks over a made-up catalogue."""
    system = load_system("shop")
    bundle, users = write_synthetic(system, tmp_path_factory.mktemp("spoilt"), Sizes(3_000, users=20, with_neighbours=900, on_offer=1_500))
    return Recommender(Bundle.load(bundle), system), StateTable.load(users)


def wild(random: np.random.Generator, values: np.ndarray, share: float) -> np.ndarray:
    """Some of the numbers as they should not be."""
    hit = random.random(values.shape) < share
    return np.where(hit, random.choice(WILD, values.shape), values).astype(values.dtype)


def wild_state(random: np.random.Generator, recommender: Recommender, state: UserState) -> UserState:
    share = float(random.choice([0, 0.1, 1]))
    count, clicks = len(state.keys), int(random.integers(0, 9))
    keys = np.where(random.random(count) < share, random.integers(2**63, size=count, dtype=np.uint64), state.keys)
    keys = random.choice(keys, count) if count and random.random() < 0.3 else keys  # named twice, and in no order
    return replace(
        state, keys=keys, first_day=wild(random, state.first_day, share), last_day=wild(random, state.last_day, share),
        counts=wild(random, state.counts, share), decayed=wild(random, state.decayed, share),
        session_keys=random.choice(recommender.catalogue.keys, clicks), session_types=random.integers(0, 9, clicks).astype(np.uint32),
        session_days=wild(random, np.full(clicks, recommender.catalogue.cut_day), share), features=wild(random, state.features, share),
    )  # fmt: skip


@fuzzed
@given(SEEDS, st.booleans())
def test_whatever_a_state_says_a_list_is_answered(shop: tuple[Recommender, StateTable], seed: int, discover: bool) -> None:
    recommender, table = shop
    random = np.random.default_rng(seed)
    state = wild_state(random, recommender, table[int(random.integers(len(table)))])
    with np.errstate(all="ignore"):
        answer = recommender.recommend(Request(state.user_id, 10, recommender.catalogue.cut_day, discover=discover), state)
    rows = [item.row for item in answer.items]
    assert len(rows) == len(set(rows)) == 10
    assert set(rows) <= set(range(len(recommender.catalogue)))


@pytest.fixture(scope="module")
def wire(shop: tuple[Recommender, StateTable]) -> tuple[str, Shape, list[bytes], Candidates]:
    """Frames of a real question and its pool."""
    recommender, table = shop
    digest = "sha256:" + "ab" * 32
    told, pool = [], None
    for number in range(3):
        request = Request(table[number].user_id, 10, recommender.catalogue.cut_day, place="")
        query = recommender.query(
            request, table[number].with_session_event(int(recommender.catalogue.keys[number]), "click", request.at_day)
        )
        side = recommender.user_side(query)
        pool = recommender.retrieve(query, side)
        told += [frames.retrieve_frame(digest, query, side).behind(b"%d."), frames.rank_frame(digest, query, side, pool).behind(b"%d.")]
    assert pool is not None
    return digest, Shape.of(recommender), [frame.partition(b".")[2] for frame in told], pool


def spoil(random: np.random.Generator, frame: bytes) -> bytes:
    """Bytes, or whole numbers where numbers lie, changed to others."""
    at, out = int(random.integers(8, len(frame) - 4)), bytearray(frame)
    if random.random() < 0.3:
        out[at] = int(random.integers(256))
    else:
        at -= at % 4
        word: Any = random.choice(WILD) if random.random() < 0.6 else np.int32(random.choice([-1, 2**31 - 1, -(2**31), 3_000, 7]))
        out[at : at + 4] = word.tobytes()
    return bytes(out)


@fuzzed
@given(SEEDS)
def test_a_frame_is_refused_or_answered(
    shop: tuple[Recommender, StateTable], wire: tuple[str, Shape, list[bytes], Candidates], seed: int
) -> None:
    recommender, (digest, shape, told, _) = shop[0], wire
    random = np.random.default_rng(seed)
    frame = told[int(random.integers(len(told)))]
    for _ in range(int(random.integers(1, 4))):
        frame = spoil(random, frame)
    for read in (frames.read_retrieve, frames.read_rank):
        try:
            found = read(frame, digest, shape)
        except (WireError, ValueError):
            continue
        question, pool = found if isinstance(found, tuple) else (found, None)
        query = question.query(recommender)
        with np.errstate(all="ignore"):
            pool = recommender.retrieve(query, question.side) if pool is None else pool
            if len(pool):
                scores = recommender.scoring.rank(query, question.side, pool)
                assert len(scores.light) == len(pool)


@pytest.mark.skipif(not kernel.native(), reason="the native kernel was not compiled here")
@fuzzed
@given(SEEDS)
def test_the_boundary_takes_no_array_it_was_not_made_for(seed: int) -> None:
    """Arrays of wrong lengths, types, layouts and rows, at random, to every function that takes arrays alone."""
    random = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        made = wild(
            random, np.ones([max(size + int(random.integers(-1, 2)) * int(random.random() < 0.2), 0) for size in shape], np.float32), 0.1
        )
        return made if random.random() < 0.9 else made.astype(np.float64)

    def rows(count: int, below: int) -> np.ndarray:
        return random.integers(-1 if random.random() < 0.1 else 0, below + int(random.random() < 0.1), count).astype(np.int32)

    size = int(random.integers(1, 40))
    marks = random.random(size) < 0.3
    table = random.integers(-128, 128, (size, 64), dtype=np.int8)
    past = kernel.Past(rows(size, 50), numbers(len(TAUS_DAYS), size), numbers(len(TAUS_DAYS)), rows(3, 50), numbers(3))
    calls = (
        lambda: kernel.descending(numbers(size)),
        lambda: kernel.products(table, numbers(64), numbers(size), numbers(size)),
        lambda: kernel.search(table, numbers(64), numbers(size), numbers(size), marks, 25, int(random.integers(0, 60)), rows(4, size)),
        lambda: kernel.spans(
            table, numbers(64), numbers(size), numbers(size), np.sort(random.integers(-1, size + 2, 3)), np.array([size] * 3)
        ),
        lambda: kernel.final_scores(numbers(size, 2), marks, numbers(size), HEADS, rows(size, size) if random.random() < 0.5 else None),
        lambda: kernel.provenance(rows(size, 50), numbers(size, 4), np.sort(rows(9, 50)), rows(9, 50)),
        lambda: kernel.first_page(rows(size, 50), numbers(size), marks, np.zeros(50, np.uint8), 3, ((rows(50, 4), 2),), ((marks, 1),), 5),
        lambda: kernel.buy_again(numbers(50), 0.5, past, 50, 20),
        lambda: kernel.history_embedding(random.normal(size=(50, 64)).astype(np.float16), past, 50),
    )
    for call in calls:
        try:
            call()
        except (ValueError, OverflowError):
            continue
