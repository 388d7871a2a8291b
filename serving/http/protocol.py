"""One HTTP/1.1 connection: uvicorn's protocol on httptools and uvloop, with a short way for what makes up nearly all of the traffic.

uvicorn reads requests, keeps their order and closes connections; a request that came whole is answered in one write (`App.direct`).
"""

import asyncio
import re
from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from time import perf_counter
from typing import Any, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.http.app import Scope

FIRST_REQUEST_SECONDS = 5.0  # a connection that has sent no request by then is closed
_HEADS, _LONGEST_HEAD = 16, 2048  # remembered of one connection, and the bytes of each
_LENGTH = re.compile(rb"\r\ncontent-length: (\d{1,9})\r\n", re.IGNORECASE)
_GATHER_SECONDS = 1.0  # a body that takes longer is the parser's


class _Head(NamedTuple):
    """What the parser made of the head of a request for one of the application's own routes."""

    scope: dict[str, Any]  # what `App.direct` reads of it
    keep_alive: bool
    length: int  # of the body


class _Coming(NamedTuple):
    """A request with a known head whose body is not whole yet."""

    known: _Head
    end: int  # of the head
    total: int  # bytes of head and body
    gathered: bytearray
    timer: asyncio.TimerHandle


class _Whole:
    """A request that came whole, as uvicorn's protocol sees those under way."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete", "response_started")

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive, self.message_event = keep_alive, self
        self.disconnected = self.response_started = self.response_complete = False

    def set(self) -> None:
        """Nobody waits for more of it."""


class _Begun(Coroutine[Any, Any, bytes | None]):
    """A coroutine that has begun outside of a task and waits: a task that takes it over is first told for what."""

    def __init__(self, coroutine: Coroutine[Any, Any, bytes | None], waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, [waits_for]

    def send(self, value: Any) -> Any:
        return self._waits_for.pop() if self._waits_for else self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        self._waits_for.clear()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, bytes | None]:
        raise RuntimeError("a task runs it, nobody awaits it")


class Protocol(HttpToolsProtocol):
    """Stamps each request as it is read, answers it directly where it came whole, and closes connections that send none.

    A client asks again and again with the same head: what the parser made of it is remembered for its connection, by all its bytes
    but the length of the body; and by all of them, since few lengths make most requests.
    """

    _quiet_since: float | None = None  # by the loop's clock; None: a request is under way
    _within = False  # the parser is within a message
    _begun = 0  # messages the parser has begun
    _coming: _Coming | None = None
    _heads: dict[bytes, _Head]  # without the length
    _whole_heads: dict[bytes, _Head]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heads, self._whole_heads = {}, {}
        self._idle = self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.cancel()
        if self._coming is not None:
            self._coming.timer.cancel()
            self._coming = None
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._coming is not None:
            self._more(data)
        elif self._within or not (self.cycle is None or self.cycle.response_complete):
            super().data_received(data)
        else:
            self._first(data)

    def _first(self, data: bytes) -> None:
        """Where a message begins and none is under way."""
        end = data.find(b"\r\n\r\n", 0, _LONGEST_HEAD) + 4
        head = data[:end]
        known = self._whole_heads.get(head) or self._known(head)
        if known is not None and len(data) == end + known.length:
            self._serve(known, data[end:])
        elif known is not None and len(data) < end + known.length:
            total = end + known.length
            self._coming = _Coming(known, end, total, bytearray(data), self.loop.call_later(_GATHER_SECONDS, self._let_parse))
        else:
            begun = self._begun
            super().data_received(data)
            if end > 3 and self._begun == begun + 1 and not self._within and self.parser is not None:
                self._remember(head)

    def _known(self, head: bytes) -> _Head | None:
        """A head that has come with another length of the body before."""
        key, length = _split(head)
        known = self._heads.get(key)
        if known is None or length > self.app.max_body:
            return None
        if len(self._whole_heads) >= _HEADS:
            self._whole_heads.clear()
        known = self._whole_heads[head] = known._replace(length=length)
        return known

    def _more(self, data: bytes) -> None:
        """The rest of a body, or a part of it."""
        assert self._coming is not None
        known, end, total, gathered, timer = self._coming
        gathered += data
        if len(gathered) == total:
            timer.cancel()
            self._coming = None
            self._serve(known, bytes(memoryview(gathered)[end:]))
        elif len(gathered) > total:
            self._let_parse()

    def _let_parse(self) -> None:
        """Leave what has come to the parser: more than one message, or one that comes slowly."""
        if self._coming is not None:
            gathered, timer = self._coming[3:]
            timer.cancel()
            self._coming = None
            super().data_received(bytes(gathered))

    def _serve(self, known: _Head, body: bytes) -> None:
        """Answer when the sockets have been read: whoever has asked by then is stamped before the first engine call."""
        self._quiet_since = None
        self.cycle = cycle = cast(Any, _Whole(known.keep_alive))
        context, scope = copy_context(), {**known.scope, "arrived": perf_counter()}
        self.loop.call_soon(self._answer, cycle, scope, body, context, context=context)

    def _answer(self, cycle: Any, scope: Scope, body: bytes, context: Context) -> None:
        """Without a task, which costs as much as reading and writing, unless the answer has to wait for something."""
        answer = self.app.direct(scope, body)
        try:
            waits_for = answer.send(None)
        except StopIteration as answered:
            self._respond(cycle, answered.value)
        else:
            task: asyncio.Task[Any] = self.loop.create_task(_Begun(answer, waits_for), context=context)
            self.tasks.add(task)
            task.add_done_callback(lambda _: self._answered(cycle, task))

    def _answered(self, cycle: Any, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            self._respond(cycle, task.result())

    def _remember(self, head: bytes) -> None:
        """The head of the request just read, for the next time."""
        key, length = _split(head)
        scope, names = self.scope, [name for name, _ in self.headers]
        plain = not {b"transfer-encoding", b"expect", b"upgrade"} & set(names) and names.count(b"content-length") == (
            scope["method"] == "POST"
        )
        if plain and scope["path"] in getattr(self.app, "routes", ()) and length <= self.app.max_body:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            read = {"method": scope["method"], "path": scope["path"], "headers": scope["headers"]}
            self._heads[key] = _Head(read, self.cycle.keep_alive, length)

    def on_message_begin(self) -> None:
        self._within = True
        self._begun += 1
        super().on_message_begin()
        self.scope["arrived"] = perf_counter()  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        self._idle.cancel()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        task = self.loop.create_task(self._run(cycle, app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer directly what is all here and is the application's own; the rest by ASGI."""
        whole = not cycle.more_body and self.flow is not None and not self.flow.write_paused
        response = await app.direct(cycle.scope, bytes(cycle.body)) if whole else None
        if response is None:
            await cycle.run_asgi(app)
        else:
            self._respond(cycle, response)

    def _respond(self, cycle: RequestResponseCycle, response: bytes) -> None:
        if cycle.disconnected or self.transport.is_closing():
            return
        if not cycle.keep_alive:
            response = response.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
        self.transport.write(response)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """uvicorn's, with one timer a connection instead of one a request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        self._quiet_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been quiet for its time; look again when one is quiet for less."""
        quiet = 0.0 if self._quiet_since is None else self.loop.time() - self._quiet_since
        if quiet >= self.timeout_keep_alive and not self.transport.is_closing():
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive - quiet, self.timeout_keep_alive_handler)

    def on_message_complete(self) -> None:
        self._within = False
        super().on_message_complete()

    def _close_if_silent(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def _split(head: bytes) -> tuple[bytes, int]:
    """The head without the length it gives for the body, and that length; 0 where it gives none."""
    found = _LENGTH.search(head)
    return (head[: found.start(1)] + head[found.end(1) :], int(found.group(1))) if found is not None else (head, 0)
