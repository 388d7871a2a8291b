"""What is learnt from a topic in Kafka is what is learnt from the embedded log, however often a client sent it."""

from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from components.data.served import collect
from components.step import digest_of
from serving.events.inbox import open_log
from serving.events.sqlite import SqliteLog
from serving.messages import Event, EventContext
from tests.serving.events.test_kafka import broker, jars

__all__ = ["broker", "jars"]  # fixtures: a real broker
NOON = datetime(2024, 10, 4, 12, tzinfo=UTC)


def bought(number: int) -> Event:
    where = EventContext(request_id=f"r{number}", position=float(number % 3))
    return Event(f"e{number}", "purchase", f"u{number % 7:03d}", "i001", NOON + timedelta(minutes=number), value=1.0, context=where)


@pytest.mark.kafka
def test_kafkas_events_are_those_of_sqlite(tmp_path, broker):
    url, events = f"kafka://{broker}/learnt-from", [bought(number) for number in range(40)]
    sqlite = SqliteLog(tmp_path / "log")
    for part in (events[:30], events[30:], events[:30]):  # each worker is new and knows of nothing sent before
        kafka = open_log(url)
        kafka.append(part)
        kafka.close()
        sqlite.append(part)
    sqlite.close()
    copies = [collect(address, tmp_path / name) for name, address in (("k", url), ("s", f"dir:{tmp_path / 'log'}"))]
    assert digest_of(copies[0] / "events.parquet") == digest_of(copies[1] / "events.parquet")
    assert pq.read_metadata(copies[0] / "events.parquet").num_rows == 40
