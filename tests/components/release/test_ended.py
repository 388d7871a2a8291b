"""How a run on a cluster ended reaches whoever is to know, and an address that is away costs nothing but a line."""

import http.server
import json
import threading

import pytest

from components.release.ended import ADDRESS, tell


class Listener(http.server.BaseHTTPRequestHandler):
    heard: list[dict] = []  # noqa: RUF012 -- one test's

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_sentence_is_printed_and_sent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv(ADDRESS, f"http://127.0.0.1:{server.server_port}/")
        tell("shop", "drift of scores", "FAILED", "run-7", "the gate refused")
        thread.join()
    sentence = "Training of shop, begun because drift of scores: FAILED. Run run-7. the gate refused"
    assert Listener.heard == [{"text": sentence}]
    assert sentence in capsys.readouterr().out


def test_an_address_that_is_away_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        port = server.server_port  # closed again
    monkeypatch.setenv(ADDRESS, f"http://127.0.0.1:{port}/")
    assert tell("shop", "", "SUCCEEDED", "run-8", "") == "Training of shop: SUCCEEDED. Run run-8."
    assert "could not be told" in capsys.readouterr().out
