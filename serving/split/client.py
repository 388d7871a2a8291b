"""The two halves of a split recommender, asked over kept connections: `RemoteRetrieval` and `RemoteRanking` for the ladder.

HTTP/1.1, because that is what KServe and Envoy carry; written by hand on the event loop, because a client library costs more than the hop:
a call with 55 KB there and 9 KB back takes 80 us of CPU, and 380 to 430 by aiohttp 3.14 with one connector.
A call has one deadline for connecting, sending and receiving together; a connection carries one call at a time.
"""

import asyncio
import re
from contextlib import suppress
from typing import cast

from serving.query import Candidates, Query
from serving.ranking.rankers import UserSide
from serving.ranking.scoring import Scores
from serving.split import frames as wire
from serving.split.frames import Buffer, Frame, Shape

_MAX_HEAD = 16_384
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?=\r\n)", re.IGNORECASE)


class PeerError(RuntimeError):
    """The other server did not answer in time, or not as it should; the message names it."""


class _Stale(Exception):
    """The connection was closed before a reply began."""


class _Line(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._reply: asyncio.Future[tuple[int, Buffer]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    async def exchange(self, message: bytes, seconds: float) -> tuple[int, Buffer]:
        """Status and body of the reply. Raises `TimeoutError`, `_Stale`, `OSError` or `ValueError`; the connection is done with then."""
        loop = asyncio.get_running_loop()
        self._data, self._reply = b"", loop.create_future()
        timer = loop.call_later(seconds, self._end, TimeoutError())
        try:
            self.transport.write(message)
            return await self._reply
        except BaseException:
            self.transport.abort()
            raise
        finally:
            self._reply = None
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._reply is None or self._reply.done():
            self.transport.abort()  # nothing was asked
            return
        if not self._data:
            self._data = data
        else:
            self._data = self._data if isinstance(self._data, bytearray) else bytearray(self._data)
            self._data += data
        try:
            told = _reply(self._data)
        except ValueError as error:
            self._end(error)
            return
        if told is not None:
            self._reply.set_result(told)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ValueError("the connection was closed within a reply") if self._data else exc or _Stale("the connection was closed"))

    def _end(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)


def _reply(data: bytes | bytearray) -> tuple[int, Buffer] | None:
    """Status and body of a reply with a content-length; None: not whole yet. Raises `ValueError`."""
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD + 4)
    if end < 0:
        if len(data) > _MAX_HEAD:
            raise ValueError("the reply's head does not end")
        return None
    status, lengths = _STATUS.match(data), _LENGTH.findall(data, 0, end + 2)
    if status is None:
        raise ValueError("the reply does not begin as HTTP does")
    if len(lengths) != 1 or int(lengths[0]) > wire.MAX_FRAME + _MAX_HEAD:
        raise ValueError("the reply has no usable content-length")
    total = end + 4 + int(lengths[0])
    if len(data) > total:
        raise ValueError("the reply is longer than it says")
    if len(data) < total:
        return None
    body = memoryview(data)[end + 4 :]
    return int(status[1]), body if end % 4 == 0 else bytes(body)  # numbers in it are aligned


_POST = b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/octet-stream\r\ncontent-length: %%d\r\n\r\n"


class Peer:
    """One server's address; `post` sends a body and returns the reply's. For one event loop."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"expected HOST:PORT of a server, got {address!r}")
        self.address, self._host, self._port = address, host.strip("[]"), int(port)
        self._named = address.encode().replace(b"%", b"%%")  # of a zone: a head is a form to be filled in
        self._idle: list[_Line] = []

    async def post(self, path: str, frame: Frame, timeout_seconds: float) -> Buffer:
        """Raises `PeerError`. A kept connection that the other side has closed meanwhile is made anew once."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_seconds
        message = frame.behind(_POST % (path.encode(), self._named))
        try:
            line = self._kept()
            if line is not None:
                with suppress(ConnectionError, _Stale):  # closed between two calls: made anew
                    return self._read(line, *await line.exchange(message, timeout_seconds))
            made = await loop.create_task(self._connect(ends))  # a task: a request may begin without one, and only a task has a timeout
            return self._read(made, *await made.exchange(message, ends - loop.time()))
        except TimeoutError as error:
            raise PeerError(f"{self.address} did not answer in its time") from error
        except (OSError, ValueError, _Stale) as error:
            raise PeerError(f"{self.address}: {error}") from error

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().transport.abort()

    async def _connect(self, ends: float) -> _Line:
        async with asyncio.timeout_at(ends):
            return (await asyncio.get_running_loop().create_connection(_Line, self._host, self._port))[1]

    def _kept(self) -> _Line | None:
        """An open connection that carries no call."""
        while self._idle:
            line = self._idle.pop()
            if not line.transport.is_closing():
                return line
        return None

    def _read(self, line: _Line, status: int, body: Buffer) -> Buffer:
        self._idle.append(line)
        if status != 200:
            raise PeerError(f"{self.address} refused with {status}: {bytes(body[:300]).decode(errors='replace')}")
        return body


class RemoteRetrieval:
    """`serving.resilience.ladder.RemoteRetriever` by a server of role retrieval. Raises `PeerError` or `serving.split.frames.WireError`."""

    def __init__(self, peer: Peer, digest: str, shape: Shape) -> None:
        self._peer, self._digest, self._shape = peer, digest, shape

    async def __call__(self, query: Query, side: UserSide, timeout_seconds: float) -> Candidates:
        frame = wire.retrieve_frame(self._digest, query, side)
        return wire.read_candidates(await self._peer.post("/v1/retrieve", frame, timeout_seconds), self._digest, self._shape)


class RemoteRanking:
    """`serving.resilience.ladder.RemoteRanker` by a server of role ranking. Raises `PeerError` or `serving.split.frames.WireError`."""

    def __init__(self, peer: Peer, digest: str) -> None:
        self._peer, self._digest = peer, digest

    async def __call__(self, query: Query, side: UserSide, pool: Candidates, timeout_seconds: float) -> Scores:
        frame = wire.rank_frame(self._digest, query, side, pool)
        return wire.read_scores(await self._peer.post("/v1/rank", frame, timeout_seconds), self._digest, len(pool))
