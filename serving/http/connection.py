"""One client's connection: deadlines for its heads and its reading, and a bound on how many there are, around the server's own protocol.

aiohttp bounds heads in bytes and idle connections in time, but not how long a head may take to come, nor how long an answer may
wait to be read, nor how many connections there are. This stands between the socket and it, and uses asyncio's public interface alone.
"""

import asyncio
from time import perf_counter
from typing import cast

HEAD_SECONDS = 5.0  # from a head's first byte, or from the connection's begin, to a head's end
UNREAD_SECONDS = 10.0  # an answer that the client does not read is given up after this
_HEAD_END = b"\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"


class Connection(asyncio.Protocol):
    """Forwards everything to `http`. `others`: all open connections; at `most` of them the one that is idle longest makes room."""

    def __init__(self, http: asyncio.Protocol, others: "set[Connection]", most: int) -> None:
        self._http, self._others, self._most = http, others, most
        self._loop = asyncio.get_running_loop()
        self._deadline: float | None = None  # for the head that is coming, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._busy = self._more = False  # a request is being answered; bytes came after its end
        self._refused = False
        self._last = b""  # the newest bytes handed on, one fewer than a head's end has: it may come in two parts
        self.arrived = 0.0  # perf_counter seconds of the newest bytes of a head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = self._transport = cast(asyncio.Transport, transport)  # uvloop's are, and do not say so
        if len(self._others) >= self._most and not self._make_room():
            self._refused = True
            transport.write(_FULL)
            transport.close()
            return
        self._others.add(self)
        transport.set_write_buffer_limits(high=0)  # "paused" then means: something is not read yet
        self._expect_head()
        self._http.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        if not self._refused:
            self._others.discard(self)
            self._http.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._busy:
            self._more = True
        else:
            self.arrived = perf_counter()
            self._expect_head()
        self._hand_on(data)

    def eof_received(self) -> bool | None:
        return None if self._refused else self._http.eof_received()

    def pause_writing(self) -> None:
        if self._unread is None:
            self._unread = self._loop.call_later(UNREAD_SECONDS, self._transport.abort)
        self._http.pause_writing()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        self._http.resume_writing()

    def began(self) -> None:
        """A head is whole: its request is being answered."""
        self._busy, self._more, self._deadline = True, False, None

    def whole(self) -> None:
        """The request's body is here: what comes from now on belongs to the next one."""
        self._more = False

    def ended(self) -> None:
        """The request is answered; a further head may have begun to come."""
        self._busy = False
        if self._more:
            self._expect_head()

    def _hand_on(self, data: bytes) -> None:
        """A head ends what is handed on, so that an error after it cannot take it along: aiohttp drops what it read in the same bytes."""
        seen = self._last + data
        begin, sought = len(self._last), 0
        while begin < len(seen):
            found = seen.find(_HEAD_END, sought)
            end = found + len(_HEAD_END) if found >= 0 else len(seen)
            self._http.data_received(seen[begin:end])
            begin = sought = end
        self._last = seen[1 - len(_HEAD_END) :]

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.time() + HEAD_SECONDS
            if self._timer is None:
                self._timer = self._loop.call_at(self._deadline, self._check)

    def _check(self) -> None:
        """One timer a connection, not one a request: it looks whether what it was set for is still awaited."""
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() >= self._deadline:
            self._transport.abort()
        else:
            self._timer = self._loop.call_at(self._deadline, self._check)

    def _make_room(self) -> bool:
        """Close the connection that is quiet longest; False when all are at work."""
        quiet = [other for other in self._others if not other._busy]
        if not quiet:
            return False
        oldest = min(quiet, key=lambda other: other.arrived)
        self._others.discard(oldest)
        oldest._transport.close()
        return True
