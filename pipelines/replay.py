"""`shortlist replay`: the rows after the cut, sent as events to a running server in their order, as fast or as slowly as asked."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from feature_repo.schema import EVENTS
from serving.system import load_system

BATCH = 200  # events in one request, well under the server's limit
SECONDS_TO_ANSWER = 30.0
_CONTEXT = "context_"
Event = dict[str, Any]


class BadReplay(ValueError):
    """There is nothing to replay, or nobody to replay it to."""


@dataclass(frozen=True)
class Replayed:
    """What the server said of the events."""

    sent: int
    accepted: int
    duplicates: int
    refused: int


def replay(system: str, since: str, until: str, speed: float, url: str, home: Path) -> Replayed:
    """Send the accepted events from `since` to `until` to the server at `url`, and print what became of them.

    `speed`: how many times faster than they happened; 0: as fast as the server takes them.
    """
    from rich.console import Console
    from rich.progress import track

    rows = accepted_events(system, _moment(since, "--from"), _moment(until, "--to") if until else None, home)
    batches = list(due(rows, speed))
    sent = [post(batch, url) for batch in track(paced(batches, time.sleep, time.monotonic), "events", len(batches), transient=True)]
    total = Replayed(*(sum(getattr(part, name) for part in sent) for name in ("sent", "accepted", "duplicates", "refused")))
    Console().print(f"{total.sent} events sent: {total.accepted} accepted, {total.duplicates} known before, {total.refused} refused")
    return total


def accepted_events(system: str, since: datetime, until: datetime | None, home: Path) -> list[Event]:
    """Events of the tables accepted last, in the order they happened, as the wire wants them."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    note = home / "accepted" / f"{load_system(system).name}.json"
    if not note.is_file():
        raise BadReplay(f"no tables of {system} were accepted under {home}: run `shortlist train {system}` first")
    table = pq.read_table(home / json.loads(note.read_text())["accepted"] / "events.parquet")
    times = table.column("timestamp")
    kept = pc.greater_equal(times, since) if until is None else pc.and_(pc.greater_equal(times, since), pc.less(times, until))
    rows = table.filter(kept).sort_by([("timestamp", "ascending"), ("event_id", "ascending")])
    if not rows.num_rows:
        raise BadReplay(f"no event lies at or after {since.isoformat()}: the last is at {pc.max(times).as_py()}; choose an earlier --from")
    return [wire(row) for row in rows.select(list(EVENTS.names)).to_pylist()]


def wire(row: Event) -> Event:
    """A row of the events table as the wire wants it: context nested, nothing where nothing is known."""
    known = {name: value for name, value in row.items() if value is not None}
    event = {name: value for name, value in known.items() if not name.startswith(_CONTEXT)}
    context = {name.removeprefix(_CONTEXT): value for name, value in known.items() if name.startswith(_CONTEXT)}
    event["timestamp"] = event["timestamp"].astimezone(UTC)
    return event | ({"context": context} if context else {})


def due(events: list[Event], speed: float) -> Iterator[tuple[float, list[Event]]]:
    """Batches with the second each is due, counted from the first event: at speed 0 all at once, else those of the same second."""
    batch: list[Event] = []
    second = 0.0
    for event in events:
        when = (event["timestamp"] - events[0]["timestamp"]).total_seconds() / speed if speed else 0.0
        if batch and (len(batch) == BATCH or int(when) > int(second)):
            yield second, batch
            batch = []
        if not batch:
            second = when
        batch.append(event)
    if batch:
        yield second, batch


def paced(batches: list[tuple[float, list[Event]]], sleep: Callable[[float], object], clock: Callable[[], float]) -> Iterator[list[Event]]:
    """Each batch when it is due."""
    started = clock()
    for second, batch in batches:
        early = started + second - clock()
        if early > 0:
            sleep(early)
        yield batch


def post(events: list[Event], url: str) -> Replayed:
    """Send one batch. Raises `BadReplay` when nobody answers, or the answer is an error."""
    body = json.dumps({"events": events}, default=lambda moment: moment.isoformat())
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port or 80, timeout=SECONDS_TO_ANSWER)
    try:
        connection.request("POST", f"{where.path.rstrip('/')}/v1/events", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    except OSError as problem:
        raise BadReplay(f"no server answers at {url} ({problem}): start one with `shortlist serve`, or give --url") from problem
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise BadReplay(f"{url}/v1/events answered {answer.status}: {text[:300].decode(errors='replace')}")
    said = json.loads(text)
    return Replayed(len(events), said["accepted"], said["duplicates"], len(said["refused"]))


def _moment(text: str, option: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as problem:
        raise BadReplay(f"{option} {text!r} is no moment: write it like 2017-11-27 or 2017-11-27T06:00:00+00:00") from problem
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
