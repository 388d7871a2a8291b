"""The two halves of a split recommender, asked over a kept connection: `RemoteRetrieval` and `RemoteRanking` for the ladder.

HTTP/1.1, because that is what KServe and Envoy carry; written by hand over a socket, because a client library costs more than the hop.
A call has one deadline for connecting, sending and receiving together. Each thread has its own connection.
"""

import socket
import threading
from contextlib import suppress
from time import monotonic

from serving import wire
from serving.query import Candidates, Query
from serving.recommender import Scores

_MAX_HEAD = 16_384
_CHUNK = 1 << 18


class PeerError(RuntimeError):
    """The other server did not answer in time, or not as it should; the message names it."""


class Peer:
    """One server's address; `post` sends a body and returns the reply's."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"expected HOST:PORT of a server, got {address!r}")
        self.address, self._at = address, (host.strip("[]"), int(port))
        self._local = threading.local()
        self._kept: set[socket.socket] = set()  # of all threads

    def post(self, path: str, body: bytes, timeout_seconds: float) -> bytes:
        """Raises `PeerError`. A kept connection that the other side has closed meanwhile is made anew once."""
        ends = monotonic() + timeout_seconds
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self.address}\r\ncontent-type: application/octet-stream\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        message = head.encode() + body
        kept = self._taken()
        try:
            if kept is not None:
                with suppress(ConnectionError, _Stale):
                    return self._exchange(kept, message, ends)
            fresh = socket.create_connection(self._at, max(ends - monotonic(), 0.001))
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._exchange(fresh, message, ends)
        except TimeoutError as error:
            raise PeerError(f"{self.address} did not answer in its time") from error
        except (OSError, ValueError, _Stale) as error:
            raise PeerError(f"{self.address}: {error}") from error

    def close(self) -> None:
        """Close the kept connections of all threads."""
        for connection in tuple(self._kept):
            connection.close()
        self._kept.clear()

    def _taken(self) -> socket.socket | None:
        """This thread's connection, which is put back only after a whole reply."""
        kept: socket.socket | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if kept is not None:
            self._kept.discard(kept)
        return kept

    def _exchange(self, connection: socket.socket, message: bytes, ends: float) -> bytes:
        try:
            connection.settimeout(max(ends - monotonic(), 0.001))
            connection.sendall(message)
            status, body = _reply(connection, ends)
        except BaseException:
            connection.close()
            raise
        self._local.connection = connection
        self._kept.add(connection)
        if status != 200:
            raise PeerError(f"{self.address} refused with {status}: {body[:300].decode(errors='replace')}")
        return body


class _Stale(Exception):
    """The connection was closed before a reply began."""


def _reply(connection: socket.socket, ends: float) -> tuple[int, bytes]:
    """Status and body of one reply with a content-length."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > _MAX_HEAD:
            raise ValueError("the reply's head does not end")
        data += _received(connection, ends, bool(data))
    lines = bytes(data[:end]).split(b"\r\n")
    parts = lines[0].split(b" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise ValueError("the reply does not begin as HTTP does")
    status = int(parts[1])
    lengths = [int(line.partition(b":")[2]) for line in lines[1:] if line[:15].lower() == b"content-length:"]
    if len(lengths) != 1 or not 0 <= lengths[0] <= wire.MAX_FRAME + _MAX_HEAD:
        raise ValueError("the reply has no usable content-length")
    total = end + 4 + lengths[0]
    while len(data) < total:
        data += _received(connection, ends, True)
    if len(data) > total:
        raise ValueError("the reply is longer than it says")
    return status, bytes(data[end + 4 :])


def _received(connection: socket.socket, ends: float, begun: bool) -> bytes:
    left = ends - monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
    part = connection.recv(_CHUNK)
    if not part:
        raise ValueError("the connection was closed within a reply") if begun else _Stale("the connection was closed")
    return part


class RemoteRetrieval:
    """`serving.ladder.Retriever` by a server of role retrieval. Raises `PeerError` or `serving.wire.WireError`."""

    def __init__(self, peer: Peer, digest: str, items: int, sources: int) -> None:
        self._peer, self._digest, self._items, self._sources = peer, digest, items, sources

    def __call__(self, query: Query, timeout_seconds: float) -> Candidates:
        frame = wire.retrieve_frame(self._digest, query.request, query.state)
        return wire.read_candidates(self._peer.post("/v1/retrieve", frame, timeout_seconds), self._digest, self._items, self._sources)


class RemoteRanking:
    """`serving.ladder.Ranker` by a server of role ranking. Raises `PeerError` or `serving.wire.WireError`."""

    def __init__(self, peer: Peer, digest: str) -> None:
        self._peer, self._digest = peer, digest

    def __call__(self, query: Query, pool: Candidates, timeout_seconds: float) -> Scores:
        frame = wire.rank_frame(self._digest, query.request, query.state, pool)
        return wire.read_scores(self._peer.post("/v1/rank", frame, timeout_seconds), self._digest, len(pool))
