"""Memory does not grow with what is asked or posted: a real server over 20,000 requests and a thousand posts."""

import http.client
import json
from pathlib import Path

import pytest

from tests.serving.servers import Running, running, tiny_options

GROWN_KB = 16_000  # after the first part, in which caches fill up


def rss_kb(server: Running) -> int:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4


def ask(server: Running, count: int, first: int = 0) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for number in range(first, first + count):
        body = {"user_id": f"u{number % 40:02}" if number % 3 else f"stranger {number}", "k": (10, 1, 40)[number % 3]}
        connection.request("POST", "/v1/recommendations", json.dumps(body))
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    connection.close()


@pytest.mark.slow
def test_memory_stays_flat_over_twenty_thousand_requests_and_a_thousand_posts(tmp_path: Path) -> None:
    with running(tiny_options(tmp_path)) as server:
        ask(server, 5_000)
        early = rss_kb(server)
        ask(server, 15_000, 5_000)
        asked = rss_kb(server)
        for number in range(1_000):
            item = {"item_id": f"new-{number}", "category": "D > C3", "title": f"OAT BAR {number}", "price": 2.5}
            assert server.ask("POST", "/v1/items", {"items": [item]})[0] == 200
            if number == 199:
                posted = rss_kb(server)
        late = rss_kb(server)
        print(f"RSS: {early} KB after 5,000 requests, {asked} after 20,000; {posted} after 200 posts, {late} after 1,000")
    assert asked - early < GROWN_KB
    assert late - posted < GROWN_KB
