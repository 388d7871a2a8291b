"""What was served comes back once: as the schema's own rows, joined to what was shown."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from components.data.served import NothingServed, append, collect, log_of
from components.step import digest_of
from feature_repo.schema import EVENTS, SECONDS_A_DAY, USERS
from serving.event_meanings import Ignored, Positive
from serving.events.sqlite import SqliteLog
from serving.exposures.shown import ShownList, user_key
from serving.exposures.tables import SHOWN, AnsweredBy, SegmentTable
from serving.messages import ERASE, Event, EventContext

RELEASE = AnsweredBy("sha256:abc", ("buy_again", "linear"))


def bought(number: int, user: str, item: str, at: datetime, **context: object) -> Event:
    return Event(f"s{number}", "purchase", user, item, at, value=1.0, price=2.0, context=EventContext(**context))


def shown(folder: Path, request: str, user: str, items: tuple[str, ...], day: float, lots: tuple[float, ...] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = SegmentTable(folder / SHOWN, 1 << 20, 1e9)
    table.add([(request, RELEASE, msgspec.msgpack.encode(ShownList(request, user_key(user), day, "full", items, propensities=lots)))])
    table.close()


@pytest.fixture
def log(world, tmp_path):
    """A server's folder: u000 was shown three items, bought the second, and one unasked; a newcomer came; three rows cannot be learnt."""
    folder, now = tmp_path / "home" / "serving" / "system", world.until + timedelta(days=7)
    shown(folder / "exposures", "r1", "u000", ("i001", "i002", "i003"), now.timestamp() / SECONDS_A_DAY, (1.0, 0.1, 1.0))
    events = SqliteLog(folder)
    minimal = world.strangers[0]
    events.append(
        [
            bought(1, "u000", "i002", now, request_id="r1"),
            bought(2, "u000", "i055", now - timedelta(days=9)),  # late: before the tables end
            bought(3, "newcomer", "i001", now, region="left", position=4.0),
            bought(4, "u000", "no such item", now),
            bought(5, minimal, "i001", now),
            msgspec.structs.replace(bought(6, "nobody", "i001", now), user_id="", session_id="s"),
        ]
    )
    events.close()
    return folder


def appended(world, system, url, out):
    append(system, world.folder, out / "tables", collect(url, out / "copy"))
    return {
        name: pq.read_table(out / "tables" / f"{name}.parquet").to_pylist() for name in ("events", "users", "items", "context", "shown")
    }


def test_served_rows_stand_behind_the_tables_own_with_what_was_shown(world, world_system, log, tmp_path):
    before = pq.read_table(world.folder / "events.parquet").to_pylist()
    found = appended(world, world_system, f"dir:{log}", tmp_path)
    assert found["events"][: len(before)] == before
    more = {row["event_id"]: row for row in found["events"][len(before) :]}
    assert list(more) == ["s2", "s1", "s3", "shown:r1:0", "shown:r1:1", "shown:r1:2"]  # by time, then by id
    assert list(more["s1"]) == list(EVENTS.names)
    assert (more["s1"]["context_position"], more["s1"]["context_request_id"]) == (1.0, "r1")  # from the exposure
    assert (more["s2"]["context_position"], more["s3"]["context_position"]) == (None, 4.0)
    assert [(row["item_id"], row["propensity"], row["outcomes"], row["user_id"]) for row in found["shown"]] == [
        ("i001", 1.0, None, "u000"),
        ("i002", 0.1, "purchase", "u000"),
        ("i003", 1.0, None, "u000"),
    ]


def test_a_newcomer_becomes_a_user_and_what_cannot_be_learnt_is_set_aside_with_its_reason(world, world_system, log, tmp_path):
    found = appended(world, world_system, f"dir:{log}", tmp_path)
    newcomer = found["users"][-1]
    assert (newcomer["user_id"], newcomer["region"], newcomer["consent"]) == ("newcomer", "left", "full")
    assert list(newcomer) == list(USERS.names)
    aside = pq.read_table(tmp_path / "tables" / "quarantine" / "served.parquet").to_pylist()
    assert {row["event_id"]: row["reason"] for row in aside} == {
        "s4": "item_id: not in items",
        "s5": "user_id: consent is minimal",
        "s6": "user_id: of a session without a user",
    }
    report = json.loads((tmp_path / "tables" / "served.json").read_text())
    assert report == {
        "events_in_log": 6,
        "appended": 6,
        "known_before": 0,
        "left_out": {"item_id: not in items": 1, "user_id: consent is minimal": 1, "user_id: of a session without a user": 1},
        "new_users": 1,
        "shown": 3,
    }


def test_what_a_deleted_user_did_before_is_not_appended(world, world_system, log, tmp_path):
    events, after = SqliteLog(log), world.until + timedelta(days=8)
    events.append([Event("gone", ERASE, "u000", ERASE, after), bought(7, "u000", "i001", after + timedelta(hours=1))])
    events.close()
    before = pq.read_table(world.folder / "events.parquet").num_rows
    found = appended(world, world_system, f"dir:{log}", tmp_path)
    assert [row["event_id"] for row in found["events"][before:]] == ["s3", "s7"]
    report = json.loads((tmp_path / "tables" / "served.json").read_text())
    assert report["left_out"]["user_id: deleted since"] == 6  # s1, s2 and s4, and the three items shown
    assert report["left_out"]["the word that a user was deleted"] == 1


def test_appended_tables_are_accepted_whole(world, world_system, log, tmp_path):
    from components.data.validate import validate

    appended(world, world_system, f"dir:{log}", tmp_path)
    validate(world_system, tmp_path / "tables", tmp_path / "accepted")
    kept = pq.read_table(tmp_path / "accepted" / "events.parquet")["event_id"].to_pylist()
    assert {"s1", "s2", "s3"} <= set(kept)


def test_replayed_and_repeated_events_change_nothing_twice(world, world_system, log, tmp_path):
    once = appended(world, world_system, f"dir:{log}", tmp_path / "once")
    events = SqliteLog(log)
    known = pq.read_table(world.folder / "events.parquet").slice(0, 50).to_pylist()
    events.append(
        [Event(row["event_id"], row["event_type"], row["user_id"], row["item_id"], row["timestamp"]) for row in known]
    )  # a replay
    events.append([bought(1, "u000", "i002", world.until, request_id="r1")])  # sent again
    events.close()
    again = appended(world, world_system, f"dir:{log}", tmp_path / "again")
    assert again == once
    # the tables exported since hold the served rows themselves
    import shutil

    shutil.copytree(world.folder, tmp_path / "exported")
    shutil.copyfile(tmp_path / "once" / "tables" / "events.parquet", tmp_path / "exported" / "events.parquet")
    append(world_system, tmp_path / "exported", tmp_path / "third", tmp_path / "again" / "copy")
    assert pq.read_table(tmp_path / "third" / "events.parquet").to_pylist() == once["events"]


def test_the_same_log_gives_the_same_bytes_so_that_nothing_is_learnt_anew(world, world_system, log, tmp_path):
    first, again = (collect(f"dir:{log}", tmp_path / name) for name in ("a", "b"))
    assert digest_of(first) == digest_of(again)
    assert collect(f"still:{first}", tmp_path / "unused") == first


def test_without_a_log_the_tables_pass_as_they_are(world, world_system, tmp_path):
    append(world_system, world.folder, tmp_path / "out")
    assert digest_of(tmp_path / "out") == digest_of(world.folder)


def test_what_a_client_tells_was_seen_of_an_answer_is_all_that_was(world, world_system, log, tmp_path):
    now = world.until + timedelta(days=7)
    events = SqliteLog(log)
    events.append([msgspec.structs.replace(bought(7, "u000", "i001", now, request_id="r1"), event_type="impression")])
    events.close()
    found = appended(world, world_system, f"dir:{log}", tmp_path)
    seen = [row for row in found["events"] if row["event_type"] == "impression"]
    assert [(row["event_id"], row["item_id"], row["context_position"]) for row in seen] == [("s7", "i001", 0.0)]


def test_a_system_to_which_impressions_mean_nothing_gets_none(world, world_system, log, tmp_path):
    told = replace(world_system, events={"purchase": Positive(), "impression": Ignored()})
    assert not [row for row in appended(world, told, f"dir:{log}", tmp_path)["events"] if row["event_type"] == "impression"]


def test_what_was_shown_comes_back_as_impressions(world, world_system, log, tmp_path):
    found = appended(world, world_system, f"dir:{log}", tmp_path)
    seen = [row for row in found["events"] if row["event_type"] == "impression"]
    assert [(row["event_id"], row["user_id"], row["item_id"], row["context_position"]) for row in seen] == [
        ("shown:r1:0", "u000", "i001", 0.0),
        ("shown:r1:1", "u000", "i002", 1.0),
        ("shown:r1:2", "u000", "i003", 2.0),
    ]


@pytest.mark.parametrize(
    ("url", "message"), [("file:/x", "unknown event log"), ("dir:NOWHERE", "cannot be read"), ("still:NOWHERE", "holds no copy")]
)
def test_what_cannot_be_read_is_said(url, message, tmp_path):
    with pytest.raises(NothingServed, match=message):
        collect(url.replace("NOWHERE", str(tmp_path)), tmp_path / "copy")


def test_the_log_is_found_where_serve_keeps_it(log, tmp_path):
    assert log_of("somewhere/system.py", tmp_path / "home") == f"dir:{log}"
    assert log_of("other", tmp_path / "home") == ""


def test_served_events_change_a_weight_a_list_and_a_label_of_the_next_training(world, world_system, tmp_path):
    """Sent to a real server: a craze for one item that nobody had, before the cut and after it."""
    from components.features.build import build
    from components.features.moments import cut_name
    from components.retrieval.fit import fit
    from serving.retrieval.linear import Neighbours
    from serving.retrieval.trending import Lists
    from tests.serving.servers import running, tiny_options

    options = tiny_options(tmp_path / "server", clock=datetime(2024, 3, 1, tzinfo=UTC).isoformat())
    craze, users = world.never_sold[0], sorted(world.staples)
    wanted = [
        {"event_id": f"craze {days} {user}", "event_type": "purchase", "user_id": user, "item_id": craze, "value": 1.0, "price": 2.0,
         "timestamp": (world.until + timedelta(days=days, hours=3)).isoformat()}
        for days in (-10, -5, 2) for user in users
    ]  # fmt: skip
    with running(options) as server:
        for _ in range(2):  # and sent again
            status, said = server.ask("POST", "/v1/events", {"events": wanted})
            assert status == 200, said
    assert said == {
        "accepted": 0,
        "duplicates": len(wanted),
        "refused": [],
        "unknown_items": 0,
        "without_effect": 0,
        "unused": {},
        "not_kept": 0,
    }
    append(world_system, world.folder, tmp_path / "tables", collect(options.events_url, tmp_path / "copy"))
    made = {}
    for name, tables in (("without", world.folder), ("with", tmp_path / "tables")):
        build(world_system, tables, tmp_path / name, world.until, 1)
        fit(world_system, tmp_path / name, tmp_path / f"{name} sources", fast=True, seed=0)
        made[name] = tmp_path / f"{name} sources" / "cuts" / cut_name(world.until) / "sources"
    from components.evaluation.truth import read_truth

    truths = {name: read_truth(tmp_path / name) for name in made}
    row = int(truths["with"].catalogue.row_of(craze))
    assert [row in truth.target.items.tolist() for truth in truths.values()] == [False, True]  # a label
    lists = [Lists.load(folder / "trending").rows[0].tolist() for folder in made.values()]
    assert [row in one[:10] for one in lists] == [False, True]  # a list
    weights = [Neighbours.load(folder / "linear") for folder in made.values()]
    assert [row in one.rows.tolist() for one in weights] == [False, True]  # a weight: it votes for others now
