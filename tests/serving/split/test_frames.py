"""The binary protocol: what goes in comes out, and nothing else ever comes out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from feature_repo.names import TAUS_DAYS
from serving.bundle.bundle import OtherBundle
from serving.native import kernel
from serving.query import Candidates, History, Query, Request
from serving.ranking.rankers import UserSide
from serving.ranking.scoring import Scores
from serving.split import frames as wire
from serving.split.frames import Shape, WireError
from serving.state.user_state import UserState
from serving.system import Learning
from tests.serving import tiny_bundle

DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
SHAPE = Shape(50, 3, (4, 6, 8))
REQUEST = Request("u é", 10, 20_000.5, "r1", "north", "west", "tv", "home", True)
HAD, EVENTS = 3, 2
HISTORY = History(
    np.array([2, 7, 49], np.int32),
    np.arange(HAD),
    *np.arange(3 * HAD, dtype=np.float32).reshape(3, HAD),
    np.arange(len(TAUS_DAYS) * HAD, dtype=np.float32).reshape(len(TAUS_DAYS), HAD),
)
REFUSED = np.array([1, 3, 40], np.int32)
SESSION = np.array([9, 0], np.int32), np.array([0.3, 0.6], np.float32)
FOLLOWED = np.array([1, 7], np.int32)
QUERY = Query.told(REQUEST, tiny_bundle.catalogue(), Learning(), HISTORY, SESSION, FOLLOWED, True, REFUSED)


def pool(count: int = 5) -> Candidates:
    made = np.random.default_rng(1)
    ranks = np.where(made.random((count, SHAPE.sources)) < 0.5, made.integers(0, 900, (count, SHAPE.sources)), np.inf).astype(np.float32)
    return Candidates(
        made.permutation(SHAPE.items)[:count].astype(np.int32),
        made.random((count, SHAPE.sources), np.float32),
        ranks,
        made.random(count, np.float32),
        made.random(count) < 0.5,
    )


def same(left: object, right: object) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in left.__dataclass_fields__)  # type: ignore[attr-defined]


SIDE = UserSide(np.arange(4, dtype=np.float32), np.ones((1, 6), np.float32), np.zeros((1, 8), np.float32))


def scored(heavy: "np.ndarray | None") -> Scores:  # type: ignore[type-arg]
    light = np.array([0.1, 0.5, 0.4, 0.2, 0.3], np.float32)
    return Scores(light, np.array([1, 2], np.int32), heavy, order=np.array([1, 2, 4, 3, 0], np.int32))


def sent(frame: wire.Frame) -> bytes:
    told = frame.behind(b"%d:")
    size, _, data = told.partition(b":")
    assert int(size) == len(data)
    return data


FRAMES = [
    sent(frame)
    for frame in (
        wire.retrieve_frame(DIGEST, QUERY, SIDE),
        wire.rank_frame(DIGEST, QUERY, SIDE, pool()),
        wire.candidates_frame(DIGEST, pool()),
        wire.scores_frame(DIGEST, scored(np.ones(2, np.float32))),
        wire.candidates_frame(DIGEST, pool(0)),
    )
]


def read_all(frame: bytes) -> int:
    """How many of the four readers take it, with the compiled loops and without; anything but a message or a `WireError` fails the test."""
    native = kernel.native()
    try:
        taken = [_read_all(frame)]
        kernel.use(False)
        taken.append(_read_all(frame))
    finally:
        kernel.use(native)
    assert taken[0] == taken[1]
    return taken[0]


def _read_all(frame: bytes) -> int:
    taken = 0
    for read in (
        lambda: wire.read_retrieve(frame, DIGEST, SHAPE),
        lambda: wire.read_rank(frame, DIGEST, SHAPE),
        lambda: wire.read_candidates(frame, DIGEST, SHAPE),
        lambda: wire.read_scores(frame, DIGEST, 5),
    ):
        try:
            read()
            taken += 1
        except (WireError, OtherBundle):
            continue
    return taken


def test_a_question_and_its_candidates_come_out_as_they_went_in() -> None:
    asked, candidates = wire.read_rank(FRAMES[1], DIGEST, SHAPE)
    assert asked.request == structs.replace(REQUEST, request_id="", device_type="", page="")  # nobody reads these there
    assert same(asked.history, replace(HISTORY, order=np.empty(0)))
    assert all(map(np.array_equal, asked.session, SESSION))
    assert np.array_equal(asked.followed, FOLLOWED)
    assert asked.few_visits
    assert same(asked.side, SIDE)
    assert same(candidates, pool())
    assert wire.read_retrieve(FRAMES[0], DIGEST, SHAPE).request == asked.request
    assert np.array_equal(wire.read_retrieve(FRAMES[0], DIGEST, SHAPE).refused, REFUSED)
    assert len(asked.refused) == 0  # ranking is given what was found
    assert same(wire.read_candidates(FRAMES[2], DIGEST, SHAPE), pool())
    assert len(wire.read_candidates(FRAMES[4], DIGEST, SHAPE)) == 0


@pytest.mark.parametrize("count", [0, 1, 119, 120, 121, 239, 240])
def test_what_a_question_leaves_out_comes_out_whatever_is_shorter_to_tell(count: int) -> None:
    items = len(QUERY.catalogue)
    refused = np.sort(np.random.default_rng(count).permutation(items)[:count]).astype(np.int32)
    query = Query.told(REQUEST, QUERY.catalogue, Learning(), HISTORY, SESSION, FOLLOWED, True, refused)
    frame = sent(wire.retrieve_frame(DIGEST, query, SIDE))
    assert np.array_equal(wire.read_retrieve(frame, DIGEST, replace(SHAPE, items=items)).refused, refused)
    assert len(frame) <= len(FRAMES[0]) + 4 * min(count, items - count)


def test_place_and_region_are_the_users_own_where_none_was_asked_for() -> None:
    query = Query(structs.replace(REQUEST, place=""), UserState("u", place="south", region="east"), QUERY.catalogue, QUERY.learning)
    request = wire.read_retrieve(sent(wire.retrieve_frame(DIGEST, query, SIDE)), DIGEST, SHAPE).request
    assert (request.place, request.region) == ("south", "west")


def test_numbers_are_read_where_they_lie() -> None:
    asked, candidates = wire.read_rank(FRAMES[1], DIGEST, SHAPE)
    assert all(getattr(candidates, name).flags.aligned for name in ("rows", "fused", "source_scores", "source_ranks"))
    assert asked.history.decayed.flags.aligned
    assert not candidates.rows.flags.owndata


@pytest.mark.parametrize("heavy", [None, np.array([0.5, 0.25], np.float32)])
def test_scores_come_out_as_they_went_in(heavy: "np.ndarray | None") -> None:  # type: ignore[type-arg]
    scores = scored(heavy)
    read = wire.read_scores(sent(wire.scores_frame(DIGEST, scores)), DIGEST, 5)
    assert np.array_equal(read.light, scores.light)
    assert np.array_equal(read.kept, scores.kept)
    assert np.array_equal(read.order, scores.order)
    assert (read.heavy is None) == (heavy is None)


def test_another_bundles_frame_is_refused_and_both_are_named() -> None:
    with pytest.raises(OtherBundle) as refused:
        wire.read_retrieve(sent(wire.retrieve_frame(OTHER, QUERY, SIDE)), DIGEST, SHAPE)
    assert DIGEST in str(refused.value)
    assert OTHER in str(refused.value)


@pytest.mark.parametrize("other", [Shape(50, 3, (4, 6, 9)), Shape(50, 2, (4, 6, 8))])
def test_a_side_or_scores_of_another_width_are_refused(other: Shape) -> None:
    with pytest.raises(WireError, match="expected"):
        wire.read_rank(FRAMES[1], DIGEST, other)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 5], [0, 1, 2, 3, 3]])
def test_a_position_beyond_the_pool_or_named_twice_is_refused(order: list[int]) -> None:
    scores = scored(None)._replace(order=np.array(order, np.int32))
    with pytest.raises(WireError, match=r"a row is outside|named twice"):
        wire.read_scores(sent(wire.scores_frame(DIGEST, scores)), DIGEST, 5)


def test_rows_beyond_the_catalogue_are_refused() -> None:
    with pytest.raises(WireError, match="a row is outside"):
        wire.read_candidates(FRAMES[2], DIGEST, replace(SHAPE, items=1))


def test_a_score_that_is_no_number_is_refused() -> None:
    scores = scored(None)._replace(light=np.full(5, np.nan, np.float32))
    with pytest.raises(WireError, match="not a finite number"):
        wire.read_scores(sent(wire.scores_frame(DIGEST, scores)), DIGEST, 5)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert read_all(data) == 0


@given(st.sampled_from(FRAMES), st.integers(0, 5_000), st.integers(0, 255))
def test_a_frame_with_a_byte_changed_is_a_message_or_refused(frame: bytes, at: int, value: int) -> None:
    changed = bytearray(frame)
    changed[at % len(frame)] = value
    assert read_all(bytes(changed)) <= 1


@given(st.sampled_from(FRAMES), st.integers(0, 5_000), st.binary(max_size=8))
def test_a_frame_cut_or_grown_is_refused(frame: bytes, at: int, more: bytes) -> None:
    changed = frame[: at % len(frame)] + more
    assert len(changed) == len(frame) or read_all(changed) == 0


@given(st.sampled_from(FRAMES), st.integers(44, 5_000), st.binary(min_size=1, max_size=64))
def test_a_body_overwritten_under_a_true_header_is_a_message_or_refused(frame: bytes, at: int, patch: bytes) -> None:
    at = 44 + (at - 44) % (len(frame) - 44)
    changed = (frame[:at] + patch)[: len(frame)]
    assert read_all(changed + frame[len(changed) :]) <= 1
