"""What is known of two bundles: counts as Prometheus tells them, clicks as the logs of a server hold them."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from math import inf
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from components.release.rollout import Unreachable
from components.release.rollout_figures import Clicks, Measured, Prometheus
from components.release.rollout_guards import Histogram
from components.release.rollout_smoke import USERS
from serving.events.sqlite import SqliteLog
from serving.exposures.shown import ShownList, user_key
from serving.exposures.tables import SHOWN, AnsweredBy, SegmentTable
from serving.messages import Event, EventContext

OLD, NEW = "a" * 64, "b" * 64


def shown(folder: Path, *lists: tuple[str, str, str], about: str = "") -> None:
    """Lists of (request, user, digest) as a server keeps them."""
    (folder / "exposures").mkdir(exist_ok=True)
    table = SegmentTable(folder / "exposures" / SHOWN, 1 << 20, 90.0)
    body = [(request, user_key(user), digest) for request, user, digest in lists]
    rows = [
        (name, AnsweredBy(f"sha256:{digest}", ()), msgspec.msgpack.encode(ShownList(name, key, 1.0, "full", ("i1",), about=about)))
        for name, key, digest in body
    ]
    table.add(rows)
    table.close()


def clicked(folder: Path, *events: tuple[str, str]) -> None:
    """Events of (type, request)."""
    log = SqliteLog(folder)
    when = datetime(2026, 1, 1, tzinfo=UTC)
    log.append([Event(f"{kind}-{request}", kind, "u", "i1", when, context=EventContext(request_id=request)) for kind, request in events])
    log.close()


def test_a_list_is_clicked_once_by_its_user_from_the_new_bundles_first_list_on(tmp_path: Path) -> None:
    shown(tmp_path, ("r0", "u1", OLD), ("r1", "u9", NEW), ("r2", "u1", OLD), ("r3", "u1", OLD), ("r4", USERS[0], NEW))
    clicked(tmp_path, ("click", "r0"), ("click", "r1"), ("purchase", "r1"), ("product_view", "r2"), ("click", "r5"))
    clicks = Clicks(tmp_path, NEW, frozenset({"click", "purchase"}))
    old, new = clicks.rates(OLD)
    assert (old.lists, old.clicked, new.lists, new.clicked) == (2, 0, 1, 1)
    shown(tmp_path, ("r5", "u2", OLD))  # its click was written first
    clicked(tmp_path, ("click", "r3"))
    old, new = clicks.rates(OLD)
    assert (old.lists, old.clicked, new.lists, new.clicked) == (3, 2, 1, 1)
    assert old.users == pytest.approx(9 / 5)  # two lists of one, one of the other
    shown(tmp_path, ("r6", "u1", OLD), ("r7", "u3", NEW), about="similar to i1")  # beside an item, which is another question
    clicked(tmp_path, ("click", "r6"), ("click", "r7"))
    assert clicks.rates(OLD) == (old, new)


def test_a_bundle_that_comes_back_is_judged_by_this_rollout_alone(tmp_path: Path) -> None:
    shown(tmp_path, *((f"early{at}", "u1", NEW) for at in range(9)))
    with closing(sqlite3.connect(tmp_path / "exposures" / SHOWN)) as log, log:
        log.execute("UPDATE rows SET at = at - 3600")
    shown(tmp_path, ("r1", "u1", OLD), ("r2", "u2", NEW), ("r3", "u3", OLD))
    clicked(tmp_path, ("click", "r2"), ("click", "r3"), ("click", "early1"))
    old, new = Clicks(tmp_path, NEW, frozenset({"click"}), time.time() - 600).rates(OLD)
    assert (old.lists, old.clicked, new.lists, new.clicked) == (1, 1, 1, 1)


def test_logs_that_cannot_be_read_are_no_figures(tmp_path: Path) -> None:
    (tmp_path / "exposures").mkdir()
    (tmp_path / "exposures" / SHOWN).write_bytes(b"no database" * 100)
    with pytest.raises(Unreachable, match="cannot be read"):
        Clicks(tmp_path, NEW, frozenset()).rates(OLD)


SERIES = {
    "shortlist_bundle_info": [({}, 1)],
    "shortlist_requests_total": [
        ({"bundle": "a" * 12, "route": f"/v1/{route}", "status": status}, n)
        for route, status, n in (
            ("recommendations", "200", 994.2),
            ("recommendations", "500", 5.9),
            ("rank", "200", 800),
            ("rank", "500", 4),
        )
    ],
    "shortlist_rung_total": [({"bundle": "a" * 12, "rung": rung}, n) for rung, n in (("full", 900), ("light", 60), ("popular", 30))],
    "shortlist_empty_lists_total": [({"bundle": "a" * 12}, 3)],
    "shortlist_request_seconds_bucket": [({"bundle": "a" * 12, "le": le}, n) for le, n in (("0.1", 800), ("+Inf", 990), ("0.05", 500))],
    "shortlist_score_bucket": [],
}


@pytest.fixture
def prometheus() -> Iterator[tuple[str, list[str]]]:
    """Its HTTP interface, and the queries it was asked."""
    asked: list[str] = []

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(parse_qs(urlsplit(self.path).query)["query"][0])
            found = next(series for name, series in SERIES.items() if name in asked[-1])
            result = [{"metric": labels, "value": [0, str(value)]} for labels, value in found]
            body = dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_counts_by_bundle_come_from_prometheus(prometheus: tuple[str, list[str]]) -> None:
    url, asked = prometheus
    found = Measured(Prometheus(url))(OLD, NEW, 0.0)
    assert found.clicks is None
    old, new = found.old, found.new
    assert (old.asked, old.errors, old.lists, old.lower, old.empty) == (1000, 10, 990, 90, 3)
    assert old.seconds == Histogram((0.05, 0.1, inf), (500, 300, 190))
    assert (new.asked, new.seconds.total) == (0, 0)
    assert all(f'bundle=~"{"a" * 12}|{"b" * 12}"' in query for query in asked)


def test_without_a_scraped_server_or_without_prometheus_nothing_is_known(
    prometheus: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SERIES, "shortlist_bundle_info", [])
    with pytest.raises(Unreachable, match="scraped no server"):
        Prometheus(prometheus[0]).answers((OLD, NEW), 0.0)
    with pytest.raises(Unreachable, match="does not answer"):
        Prometheus("http://127.0.0.1:9").answers((OLD, NEW), 0.0)
