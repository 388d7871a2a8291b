"""Where a request ends and whether it is one: the server against h11 on the same bytes, in any cut. No sockets: bytes in, bytes out."""

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.http.app import JSON, App, Body, Scope, Told
from serving.http.auth import Guard
from serving.http.body import Disconnected
from serving.http.server import Server
from serving.messages import WireProblem
from serving.telemetry.metrics import Metrics

BODY = b'{"user_id":"718","k":1}'
INNER = b"GET /v1/why/x HTTP/1.1\r\nHost: a\r\n\r\n"


class Seen(NamedTuple):
    """What a server made of some bytes: the requests it has whole, and whether it refused what came after them."""

    requests: list[tuple[str, str, bytes]]
    refused: bool


class Recorder(App):
    """Answers everything, and keeps what it was asked, with the whole body."""

    def __init__(self) -> None:
        super().__init__(Metrics("sha256:test"), Guard(), None)
        self.seen: list[tuple[str, str, bytes]] = []

    async def respond(self, scope: Scope, body: Body) -> Told:
        try:
            self.seen.append((scope["method"], scope["path"], await body()))
        except WireProblem as problem:
            return problem.status, JSON, b"{}", [(b"connection", b"close")]
        except Disconnected:
            raise
        return 200, JSON, b"{}", ()


class Wire(asyncio.Transport):
    """The other end of a connection, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed, self.protocol = bytearray(), False, None

    def get_protocol(self) -> Any:
        return self.protocol

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


async def ours(parts: Sequence[bytes]) -> Seen:
    """What the server makes of the bytes as they come in these parts, the connection's end after them."""
    app, wire = Recorder(), Wire()
    wire.protocol = connection = Server(app, 10).connection()
    connection.connection_made(wire)
    for part in parts:
        if not wire.closed:
            connection.data_received(part)
        for _ in range(12):  # the handler's turns: it waits for nothing but the bytes
            await asyncio.sleep(0)
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3}) ", bytes(wire.written))
    connection.connection_lost(None)
    for _ in range(12):
        await asyncio.sleep(0)
    return Seen(app.seen, any(status != b"200" and status != b"100" for status in statuses))


def theirs(data: bytes) -> Seen:
    """What h11 makes of the bytes, each request answered as it comes."""
    connection, seen = h11.Connection(h11.SERVER), []
    connection.receive_data(data)
    asked: h11.Request | None = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return Seen(seen, True)
        if isinstance(event, h11.Request):
            asked, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert asked is not None
            seen.append((asked.method.decode(), asked.target.partition(b"?")[0].decode(), body))
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE or connection.their_state is h11.MUST_CLOSE:
                return Seen(seen, False)
            connection.start_next_cycle()
        else:
            return Seen(seen, False)


def stricter(data: bytes) -> bool:
    """Bytes that h11 may read and this server refuses: two readers of them need not agree, so none is believed."""
    head = data.lower()
    return bool(
        re.search(rb"(?<!\r)\n|\r\n[ \t]|\r(?!\n)", data)  # bare line ends, folded lines
        or (b"transfer-encoding" in head and b"content-length" in head)
        or re.search(rb"content-length:(?:[^\r\n]*,|[ \t]*\d{19})", head)
        or re.search(rb"content-length:[^\r\n]*\r\n(?:[^\r\n]+\r\n)*content-length", head)  # twice, even where both say the same
        or not re.match(rb"(?:\r\n)*(?:(?:GET|POST|HEAD|PUT|OPTIONS|DELETE) (?:http://[a-z.]+)?/[!-~]* HTTP/1\.[01]\r\n)", data)
        or re.search(rb"\r\n(?:[^\r\n:]*[^\r\n:!#$%&'*+.^_`|~0-9a-zA-Z-][^\r\n:]*):", data)
        or re.search(rb"expect:|upgrade:|connection:", head)
        or any(one not in METHODS for one in re.findall(rb"([A-Z]+) /\S* HTTP/1", data))
    )


def check(data: bytes, cuts: Sequence[int]) -> Seen:
    """One input: the same in every cut, never more than h11 sees, and refused where h11 refuses what it has read."""
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    whole, cut = (asyncio.run(ours(parts)) for parts in ([data], [data[a:b] for a, b in pairwise(at)]))
    # No framing: llhttp takes several spaces in the request line for one, and skips line ends before it, a lone CR too.
    reference = theirs(re.sub(rb"([A-Z]+) +(/\S*) +(HTTP/1)", rb"\1 \2 \3", data.lstrip(b"\r\n")))
    assert cut == whole
    assert whole.requests == reference.requests[: len(whole.requests)]
    if reference.refused:
        assert whole.refused or len(whole.requests) <= len(reference.requests)
    if not whole.refused:
        assert len(whole.requests) == len(reference.requests) or stricter(data)
    elif not reference.refused:
        assert stricter(data)
    return whole


def post(length: bytes, body: bytes = BODY, more: bytes = b"") -> bytes:
    return b"POST /v1/recommendations HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n" + more + b"\r\n" + body


N = b"%d" % len(BODY)
METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"DELETE")
LENGTHS = [
    b"Content-Length: " + N,
    b"Content-Length:" + N,
    b"Content-Length:\t" + N,
    b"Content-Length: " + N + b" ",
    b"Content-Length: " + N.zfill(11),
    b"content-length: +" + N,
    b"Content-Length: -1",
    b"Content-Length: 0x17",
    b"Content-Length: " + N + b"\r\nContent-Length: " + N,
    b"Content-Length: " + N + b"\r\nContent-Length: 1",
    b"Content-Length: 18446744073709551617",
    b"Content-Length: " + N + b", " + N,
    b"Content-Length : " + N,
    b"Content-Length: ",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: xchunked",
    b"X: 1",
]
CHUNKED = [
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    b"5;a=b\r\n12345\r\n0\r\n\r\n",
    b"5\r\n123456\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"-1\r\n\r\n",
]
FIRST = [
    b"GET /healthz HTTP/1.1",
    b"HEAD /a?b=c HTTP/1.1",
    b"OPTIONS /x HTTP/1.1",
    b"GET /healthz HTTP/1.0",
    b"GET  /x HTTP/1.1",
    b"get /x HTTP/1.1",
]
HEADERS = [b"Host: a", b"X: a\r\n b", b"X: a\0b", b"X : 1", b"X:", b"Host: b", b": x", b"X: \xff", b"Accept: */*"]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, right or a little wrong."""
    if draw(st.booleans()):
        return post(draw(st.sampled_from(LENGTHS)), draw(st.sampled_from([BODY, INNER, b"", *CHUNKED])))
    lines = [draw(st.sampled_from(FIRST)), *draw(st.lists(st.sampled_from(HEADERS), max_size=3))]
    end = draw(st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r"]))
    return end.join([*lines, b"", b""])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A few requests after one another, perhaps with a byte changed, taken out or put in."""
    data = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        put = draw(st.sampled_from([b"", b" ", b"\r", b"\n", b"\r\n", b"\0", b":", b"1", b"\t", b"\xff", b"A"]))
        data = data[:at] + put + data[at + draw(st.integers(0, 1)) :]
    return data


@settings(max_examples=300, deadline=None, derandomize=True)
@given(streams(), st.lists(st.integers(0, 400), max_size=4))
@example(post(b"Content-Length:%d" % len(INNER), INNER) * 2, [90, 200])
@example(post(b"Content-Length: " + N) * 3, [100])
def test_the_same_bytes_in_any_cut_are_read_as_h11_reads_them(data: bytes, cuts: list[int]) -> None:
    check(data, cuts)


@pytest.mark.parametrize(
    "good",
    [post(b"Content-Length: 1", b"{"), post(b"Transfer-Encoding: chunked", CHUNKED[0]), b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"],
    ids=["length", "chunked", "no body"],
)
def test_a_whole_request_is_answered_before_what_follows_it_is_refused_wherever_its_bytes_are_cut(good: bytes) -> None:
    data = good * 2 + b'"user_id":"718"}GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n'
    asked = theirs(good).requests * 2
    for cuts in ([], range(len(data)), *([at] for at in range(1, len(data)))):
        assert check(data, cuts) == Seen(asked, True), cuts


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("body", [BODY, INNER, CHUNKED[0]], ids=["body", "inner", "chunked"])
def test_a_length_that_cannot_be_read_is_never_taken_for_none(length: bytes, body: bytes) -> None:
    check(post(length, body) + post(length, body), [70, 90, 130])


@pytest.mark.parametrize(
    "data",
    [
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 5", CHUNKED[0]),
        post(b"Content-Length: 5\r\nContent-Length: 6"),
        post(b"Content-Length: +5"),
        post(b"Transfer-Encoding: gzip, chunked", CHUNKED[0]),
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: a\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_two_readers_might_read_differently_is_refused(data: bytes) -> None:
    seen = asyncio.run(ours([data]))
    assert seen.refused
    assert [body for _, path, body in seen.requests if path != "/v1/recommendations"] == []


def test_an_offered_upgrade_is_ignored_its_body_read_and_its_connection_ended() -> None:
    offered = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    data = post(b"Content-Length: " + N, BODY, offered) + post(b"Content-Length: " + N)
    for cuts in ([], [120], [len(data) // 2 - 3]):
        assert check(data, cuts) == Seen([("POST", "/v1/recommendations", BODY)], False)
