"""The exposure log keeps what every answer showed, delays none, and explains a sample."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.bundle.bundle import OtherBundle
from serving.exposures.explain import explain, replay
from serving.exposures.log import ExposureLog, Keeping
from serving.exposures.record import record_of
from serving.exposures.shown import user_key
from serving.exposures.tables import AnsweredBy, SegmentTable, find, read_shown
from serving.query import Request
from serving.recommender import Recommender
from serving.resilience.cache import Caches
from serving.rules.specs import exposure_floor
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


def test_what_was_shown_is_read_by_time_and_from_where_the_last_reading_ended(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path, Keeping(sample=0.0))
    ladder = ladder_of(recommender, exposures=log)
    answers = [
        ladder.answer(Request(f"u{number:02}", 10, DAY + number / 10, f"r{number}", place="north"), STATES[number]) for number in range(5)
    ]
    log.close()
    found = list(read_shown(tmp_path))
    assert [one.request_id for one in found] == [f"r{number}" for number in range(5)]
    for one, answer in zip(found, answers, strict=True):
        assert one.user_key == user_key(f"u{one.request_id[1:]:0>2}")
        assert (one.bundle, one.rung, one.place) == (recommender.bundle.digest, "full", "north")
        assert [(item.item_id, item.position, set(item.sources)) for item in one.items] == [
            (entry.item_id, position, set(entry.sources)) for position, entry in enumerate(answer.items)
        ]
        assert {item.propensity for item in one.items} == {1.0}
    assert [one.request_id for one in read_shown(tmp_path, since_day=DAY + 0.25)] == ["r3", "r4"]
    assert [one.request_id for one in read_shown(tmp_path, after=found[1].seq)] == ["r2", "r3", "r4"]
    assert list(read_shown(tmp_path / "never written")) == []


def test_a_slim_record_takes_some_300_bytes_and_full_ones_are_a_sample(recommender: Recommender, tmp_path: Path) -> None:
    now = [0.0]
    log = ExposureLog(tmp_path, Keeping(sample=0.1), waiting=10_000, clock=lambda: now[0])
    ladder = ladder_of(recommender, exposures=log)
    for number in range(3000):
        ask(ladder, number % USERS, f"{number:020x}")
    log.close()
    assert (log.written, log.dropped, log.failed) == (3000, 0, 0)
    with closing(sqlite3.connect(tmp_path / "shown.sqlite")) as db:
        (pages,), (size,) = db.execute("PRAGMA page_count").fetchone(), db.execute("PRAGMA page_size").fetchone()
    assert pages * size / 3000 < 300
    with closing(sqlite3.connect(tmp_path / "full.sqlite")) as db:
        kept = db.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
    assert 60 + 200 < kept < 60 + 400  # sixty were to spare, and a tenth of the others


def test_whatever_was_degraded_is_kept_in_full(tmp_path: Path) -> None:
    recommender = Recommender(load_tiny(tmp_path / "bundle"), system())

    def fail(*_: object) -> None:
        raise OSError("gone")

    recommender.scoring.heavy = fail  # type: ignore[assignment]
    log = ExposureLog(tmp_path / "log", Keeping(sample=0.0), clock=lambda: 0.0)
    ladder = ladder_of(recommender, exposures=log)
    for number in range(100):
        ask(ladder, number % USERS, f"r{number}")
    assert all(log.find(f"r{number}") is not None for number in range(100))
    log.close()


def test_of_an_answer_without_a_full_record_it_is_told_what_was_shown(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path, Keeping(sample=0.0), clock=lambda: 0.0)
    ladder = ladder_of(recommender, exposures=log)
    answers = [ask(ladder, 3, f"r{number}") for number in range(70)]
    assert log.find("r69") is None
    story = ladder.why("r69")
    assert story is not None
    assert "sample" in story["note"]
    assert [item["item_id"] for item in story["items"]] == [item.item_id for item in answers[69].items]  # type: ignore[attr-defined]
    log.close()


def test_an_item_that_a_drawn_floor_brought_in_was_shown_that_rarely(recommender: Recommender, tmp_path: Path) -> None:
    made = system()
    rules = (*(rule for rule in made.rules if rule.kind != "at_least"), exposure_floor(2, newer_than_days=14, every=2))
    drawing = Recommender(recommender.bundle, replace(made, rules=rules))
    log = ExposureLog(tmp_path, Keeping(sample=0.0))
    ladder = ladder_of(drawing, exposures=log)
    answers = {f"r{number}": ask(ladder, 3, f"r{number}") for number in range(20)}
    log.close()
    drawn = 0
    for one in read_shown(tmp_path):
        added = {row for move in answers[one.request_id].trace.moves if move.what == "added" for row in move.rows}  # type: ignore[attr-defined]
        rows = [entry.row for entry in answers[one.request_id].items]  # type: ignore[attr-defined]
        assert [item.propensity for item in one.items] == [0.5 if row in added else 1.0 for row in rows]
        assert one.propensity == 0.5
        drawn += bool(added)
    assert 0 < drawn < 20


def test_a_file_cut_short_by_a_crash_keeps_what_was_committed(recommender: Recommender, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from serving.exposures.tables import AnsweredBy, SegmentTable\n"
        "table = SegmentTable(Path(sys.argv[1]), 1 << 30, 90)\n"
        "table.add([('first', AnsweredBy('b', ('k',)), b'1')])\n"
        "table._db.execute('BEGIN IMMEDIATE'); table._db.execute(\"INSERT INTO rows VALUES (9, 9, 9, 9, x'00')\"); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "full.sqlite")], check=False)
    assert [body for _, body, _ in find(tmp_path, "full.sqlite", "first")] == [b"1"]
    with closing(sqlite3.connect(tmp_path / "full.sqlite")) as db:
        assert db.execute("SELECT COUNT(*) FROM rows").fetchone()[0] == 1


def test_a_damaged_file_explains_nothing_and_stops_no_answer(recommender: Recommender, tmp_path: Path) -> None:
    for name in ("shown.sqlite", "full.sqlite"):
        (tmp_path / name).write_bytes(b"no database at all" * 1000)
    log = ExposureLog(tmp_path)
    assert len(ask(ladder_of(recommender, exposures=log), 3, "r").items) == 10  # type: ignore[attr-defined]
    assert log.find("r") is None
    assert log.shown("r") is None
    assert log.counters() == {"written": 0, "dropped": 0, "failed": 1}
    log.close()


def test_the_files_never_outgrow_their_bounds_and_the_oldest_go_first(recommender: Recommender, tmp_path: Path) -> None:
    log = ExposureLog(tmp_path, Keeping(sample=1.0, shown_bytes=60_000, full_bytes=100_000))
    ladder = ladder_of(recommender, exposures=log)
    for number in range(300):
        ask(ladder, number % USERS, f"r{number}")
        if number % 10 == 0:
            log.flush()
            assert (tmp_path / "full.sqlite").stat().st_size <= 140_000  # a page's worth of records above it, before they go
    assert log.find("r299") is not None
    assert log.find("r0") is None
    assert len(list(read_shown(tmp_path))) < 300
    log.close()


@pytest.mark.parametrize("jumps", [False, True], ids=["eleven days pass", "the wall clock jumps"])
def test_what_is_too_old_goes_but_not_because_the_wall_clock_jumped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: bool) -> None:
    now, since_start = 1_700_000_000.0, 100.0
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("time.monotonic", lambda: since_start)
    table = SegmentTable(tmp_path / "full.sqlite", 1 << 30, 10)
    table.add([("old", AnsweredBy("b", ()), b"1")])
    now += 11 * 86_400
    since_start += 2.0 if jumps else 11 * 86_400
    table.add([("new", AnsweredBy("b", ()), b"2")])
    table.close()
    assert [body for _, body, _ in find(tmp_path, "full.sqlite", "old")] == [b"1"] * jumps
    assert [body for _, body, _ in find(tmp_path, "full.sqlite", "new")] == [b"2"]


def test_a_look_up_is_by_the_index(tmp_path: Path) -> None:
    table = SegmentTable(tmp_path / "full.sqlite", 1 << 30, 10)
    plan = table._db.execute("EXPLAIN QUERY PLAN SELECT seq FROM rows WHERE name = 1").fetchall()
    assert "USING COVERING INDEX by_name" in plan[0][3]
    table.close()


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
        log.keep(answer, system())  # type: ignore[arg-type]
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
