"""The exposure log keeps every answer it can, delays none, and gives each back."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.bundle.bundle import OtherBundle
from serving.exposures.explain import explain, replay
from serving.exposures.log import ExposureLog
from serving.exposures.record import record_of
from serving.query import Request
from serving.recommender import Recommender
from serving.resilience.cache import Caches
from serving.state.user_state import UserState
from tests.serving.resilience.test_breaker import Clock
from tests.serving.resilience.test_ladder import ladder_of
from tests.serving.tiny_bundle import DAY, USERS, load_tiny, states, system

STATES = states()


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(load_tiny(tmp_path_factory.mktemp("bundle")), system())


def ask(ladder: object, user: int, name: str, **more: object) -> object:
    return ladder.answer(Request(STATES[user].user_id, 10, DAY + 0.3, name, **more), STATES[user])  # type: ignore[arg-type]


def test_every_answer_is_found_and_replayed_to_the_same_list(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path)
    ladder = ladder_of(recommender, exposures=log)
    answers = [ask(ladder, user, f"r{user}") for user in range(USERS)]
    for answer in answers:
        record = log.find(answer.request_id)  # type: ignore[attr-defined]
        assert record is not None
        assert replay(recommender, record).items == answer.items  # type: ignore[attr-defined]
    assert log.find("r99") is None
    log.close()
    assert (log.written, log.dropped, log.failed) == (USERS, 0, 0)


def test_an_answer_from_a_cached_pool_is_replayed_from_the_pool_of_its_own_moment(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path)
    ladder = ladder_of(recommender, caches=Caches(recommender.bundle.digest, Clock()), exposures=log)
    ladder.answer(Request("u03", 10, DAY, "first"), STATES[3])
    later = ladder.answer(Request("u03", 10, DAY + 0.03, "later"), STATES[3])
    record = log.find("later")
    assert record is not None
    assert record.pool_day == DAY
    assert replay(recommender, record).items == later.items
    log.close()


@pytest.mark.parametrize("failing", ["retrieve", "heavy"])
def test_an_answer_of_a_lower_rung_is_replayed_on_its_rung(tmp_path: Path, failing: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("gone")

    broken = Recommender(load_tiny(tmp_path / "bundle"), system())
    whole = Recommender(broken.bundle, system())
    setattr(broken if failing == "retrieve" else broken.scoring, failing, fail)
    log = ExposureLog(tmp_path / "log")
    answer = ask(ladder_of(broken, exposures=log), 3, "r")
    record = log.find("r")
    assert record is not None
    assert record.rung == {"retrieve": "cached", "heavy": "light"}[failing]
    assert replay(whole, record).items == answer.items  # type: ignore[attr-defined]
    log.close()


def test_another_process_reads_what_was_written(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path)
    ask(ladder_of(recommender, exposures=log), 3, "r")
    log.close()
    other = ExposureLog(tmp_path)
    assert other.find("r") is not None
    other.close()


def test_a_record_cut_short_by_a_crash_harms_nothing_before_it(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path)
    ladder = ladder_of(recommender, exposures=log)
    ask(ladder, 3, "first")
    ask(ladder, 4, "second")
    log.close()
    (segment,) = tmp_path.glob("*.exposures")
    content = segment.read_bytes()
    segment.write_bytes(content[:-10])
    after = ExposureLog(tmp_path)
    assert after.find("first") is not None
    assert after.find("second") is None
    ask(ladder_of(recommender, exposures=after), 5, "third")  # goes into a segment of its own
    assert after.find("third") is not None
    after.close()


def test_a_damaged_record_is_not_believed(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path)
    ask(ladder_of(recommender, exposures=log), 3, "r")
    log.close()
    (segment,) = tmp_path.glob("*.exposures")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    log = ExposureLog(tmp_path)
    assert log.find("r") is None
    log.close()


def test_the_folder_never_outgrows_its_bound(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path, segment_bytes=20_000, max_bytes=100_000)
    ladder = ladder_of(recommender, exposures=log)
    for number in range(60):
        ask(ladder, number % USERS, f"r{number}")
        log.flush()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000
    assert log.find("r59") is not None
    assert log.find("r0") is None
    log.close()


def test_an_unwritable_folder_costs_the_log_and_not_the_answer(recommender: Recommender, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    log = ExposureLog(tmp_path / "log")
    answer = ask(ladder_of(recommender, exposures=log), 3, "r")
    assert len(answer.items) == 10  # type: ignore[attr-defined]
    assert log.flush()
    assert (log.written, log.failed) == (0, 1)
    log.close()


def test_a_full_queue_is_counted_and_waits_for_nobody(recommender: Recommender, tmp_path: Path) -> None:
    reading, writing = os.pipe()  # the writer waits on this, as on a disk that hangs
    log = ExposureLog(tmp_path, waiting=2)
    log._append = lambda records: os.read(reading, 1) if records else None  # type: ignore[assignment,method-assign]
    answer = ask(ladder_of(recommender), 3, "r")
    for _ in range(200):
        log.keep(answer)  # type: ignore[arg-type]
    assert log.dropped >= 190
    os.close(writing)
    log.close()
    os.close(reading)


def test_minimal_consent_is_logged_without_the_id(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path)
    answer = ask(ladder_of(recommender, exposures=log), USERS - 1, "r")
    record = log.find("r")
    assert record is not None
    assert STATES[USERS - 1].consent == "minimal"
    assert record.request.user_id == ""
    assert UserState.unpack(record.state).user_id == ""
    assert b"u11" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert replay(recommender, record).items == answer.items  # type: ignore[attr-defined]
    log.close()


def test_a_replay_with_another_bundle_is_refused(recommender: Recommender) -> None:
    record = record_of(ask(ladder_of(recommender), 3, "r"))  # type: ignore[arg-type]
    from msgspec.structs import replace as changed

    with pytest.raises(OtherBundle, match="sha256:old"):
        replay(recommender, changed(record, bundle="sha256:old"))


def test_an_answer_that_left_its_trace_behind_is_no_record(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="no trace"):
        record_of(replace(ask(ladder_of(recommender), 3, "r"), trace=None))  # type: ignore[type-var]


def test_the_story_names_sources_history_features_and_rules(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path)
    ladder = ladder_of(recommender, exposures=log)
    ask(ladder, 3, "r")
    story = ladder.why("r")
    assert story is not None
    assert ladder.why("unknown") is None
    log.close()
    assert (story["user_id"], story["rung"], story["bundle"]) == ("u03", "full", recommender.bundle.digest)
    first = story["items"][0]
    assert {entry["source"] for entry in first["retrieved"]} == set(first["sources"])
    by_linear = next(item for item in story["items"] if item["contributions"]["linear"])
    query = recommender.query(Request("u03", 10, DAY + 0.3), STATES[3])
    row = recommender.catalogue.row_of(by_linear["item_id"])
    _, parts = recommender.sources[1].contributions(query, row)  # type: ignore[attr-defined]
    score = recommender.sources[1].retrieve(query, 10).scores_of(np.array([row], np.int32))[0]
    assert np.sum(parts) == pytest.approx(score, rel=1e-5)  # exact: the parts are the score
    assert by_linear["nearest"]["item_id"] in {"i003", "i015", "i027"}
    assert set(first["ranker"]) == {"item", "had before", "taste", "promotion", "session", "sources"}


def test_a_story_of_another_bundle_tells_what_the_record_holds(recommender: Recommender) -> None:
    from msgspec.structs import replace as changed

    record = changed(record_of(ask(ladder_of(recommender), 3, "r")), bundle="sha256:old")  # type: ignore[arg-type]
    story = explain(recommender, record)
    assert "sha256:old" in story["bundle"]
    assert "load it" in story["note"]
    assert len(story["items"]) == 10


def test_a_look_of_this_session_is_named_in_what_moved_the_score(recommender: Recommender, tmp_path: Path) -> None:
    looked = STATES[3].with_session_event(int(recommender.catalogue.keys[4]), "add_to_cart", DAY + 0.29)
    log = ExposureLog(tmp_path)
    ladder = ladder_of(recommender, exposures=log)
    ladder.answer(Request("u03", 10, DAY + 0.3, "r"), looked)
    story = ladder.why("r")
    assert story is not None
    log.close()
    session = {item["item_id"]: item["ranker"]["session"] for item in story["items"] if item["ranker"]}
    assert max(session, key=lambda item: session[item]) == "i004"
    assert session["i004"] > 0.1
