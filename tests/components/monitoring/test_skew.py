"""Skew is what a recorded state lacks of the events before its answer: none where the server folded them all, named where it lost some."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from components.data.served import collect
from components.monitoring.drift import ctr
from components.monitoring.rows import KnownBefore, Visits, state_before
from components.monitoring.skew import LEAST_SHARE, sentence, skew
from feature_repo.schema import SECONDS_A_DAY
from serving.events.sqlite import SqliteLog
from serving.exposures.record import Record
from serving.exposures.shown import ShownList, user_key
from serving.exposures.tables import FULL, SHOWN, AnsweredBy, SegmentTable
from serving.messages import Event, EventContext
from serving.query import Request
from tests.serving.tiny_bundle import DAY, states, system, write_tiny
from tests.world.plain import table_of

ASKED = DAY + 5.0


def bought(number: int, day: float, **context: str) -> Event:
    when = datetime.fromtimestamp(day * SECONDS_A_DAY, UTC)
    user, item = f"u{number % 12:02}", f"i{number * 7 % 100:03}"
    return Event(f"e{number}", "purchase", user, item, when, value=1.0, context=EventContext(**context))


@pytest.fixture
def shop(tmp_path: Path):
    """A bundle, its users, and events of five days after its cut, in tables; a function that writes what the server would have recorded."""
    bundle = write_tiny(tmp_path / "bundle")
    states().save(tmp_path / "users")
    events = [bought(number, DAY + number / 50) for number in range(200)]
    before = datetime.fromtimestamp((DAY - 3) * SECONDS_A_DAY, UTC)  # clicks of before the cut, which no state of learning's holds
    named = ("event_id", "event_type", "user_id", "item_id", "timestamp", "value")
    rows = [{name: getattr(event, name) for name in named} for event in events]
    rows += [{**row, "event_id": f"before {at}", "event_type": "click", "timestamp": before} for at, row in enumerate(rows)]
    (tmp_path / "tables").mkdir()
    pq.write_table(table_of("events", rows), tmp_path / "tables" / "events.parquet")

    def found(lost_by: int):
        """Skew where the first users, so many, lost their last three events on the way into the state."""
        table = states()
        log = SegmentTable(tmp_path / f"log{lost_by}" / "exposures" / FULL, 1 << 20, 1e9)
        for number in range(12):
            user = f"u{number:02}"
            mine = [event for event in events if event.user_id == user]
            mine = mine[:-3] if number < lost_by else mine
            days = np.array([event.timestamp.timestamp() / SECONDS_A_DAY for event in mine])
            past = KnownBefore([e.item_id for e in mine], [e.event_type for e in mine], days, [1.0] * len(mine))
            state = state_before(system(), table, user, past)
            record = Record(Request(user, 10, ASKED, f"r{number}"), state.pack(), f"sha256:{bundle.name}", "full", ())
            log.add([(f"r{number}", AnsweredBy(record.bundle, ()), msgspec.msgpack.encode(record))])
        log.close()
        SqliteLog(tmp_path / f"log{lost_by}").close()
        served = collect(f"dir:{tmp_path / f'log{lost_by}'}", tmp_path / f"served{lost_by}")
        visits = Visits(system(), tmp_path / "tables", served)
        try:
            return skew(system(), bundle, tmp_path / "users", visits, served)
        finally:
            visits.close()

    for lost_by in (0, 3):
        (tmp_path / f"log{lost_by}" / "exposures").mkdir(parents=True)
    return found


def test_states_that_hold_every_event_show_none(shop) -> None:
    assert shop(0) == {"answers": 12, "columns": {}}


def test_events_lost_by_three_of_twelve_users_are_seen_in_a_quarter_of_the_answers(shop) -> None:
    found = shop(3)
    assert found["answers"] == 12
    assert found["columns"]["log_history_events"] == 0.25
    assert all(share >= LEAST_SHARE for share in found["columns"].values())
    assert sentence(found).startswith(" Training/serving skew in 12 recorded answers: ")
    assert sentence({"answers": 12, "columns": {}}) == ""


def test_clicks_of_shown_items_are_counted_for_the_bundle_that_showed_them(tmp_path: Path) -> None:
    """Ten answers of each of two bundles; something came of three of the old one's and of six of the new one's.

    As many lists of an item's page, of all of which something came, are none of them.
    """
    folder = tmp_path / "log"
    (folder / "exposures").mkdir(parents=True)
    table = SegmentTable(folder / "exposures" / SHOWN, 1 << 20, 1e9)
    log = SqliteLog(folder)
    for bundle, clicked in (("old", 3), ("new", 6)):
        for number in range(10):
            shown = ShownList(f"{bundle}{number}", user_key("u00"), DAY, "full", ("i001", "i002"))
            table.add([(shown.request_id, AnsweredBy(f"sha256:{bundle}", ()), msgspec.msgpack.encode(shown))])
            when = datetime.fromtimestamp(DAY * SECONDS_A_DAY, UTC) + timedelta(minutes=1)
            item = "i002" if number < clicked else "i009"  # what was not shown is nobody's click
            event = Event(f"{bundle} {number}", "click", "u00", item, when, context=EventContext(request_id=shown.request_id))
            log.append([event])
            beside = ShownList(
                f"page {bundle}{number}", user_key("u00"), DAY, "full", ("i003",), about=("similar to i001", "popular")[number % 2]
            )
            table.add([(beside.request_id, AnsweredBy(f"sha256:{bundle}", ()), msgspec.msgpack.encode(beside))])
            log.append([Event(f"page {bundle} {number}", "click", "u00", "i003", when, context=EventContext(request_id=beside.request_id))])
    table.close()
    log.close()
    found = ctr(collect(f"dir:{folder}", tmp_path / "served"))
    assert {bundle: (one["shown"], one["ctr"]) for bundle, one in found.items()} == {"sha256:old": (10, 0.3), "sha256:new": (10, 0.6)}
    assert found["sha256:new"]["error"] == pytest.approx((0.6 * 0.4 / 10) ** 0.5)
