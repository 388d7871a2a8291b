"""A small ASGI application: a table of routes, one body, one reply, errors that name the field. `Api` and `StageServer` build on it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from serving import messages
from serving.http.auth import Guard
from serving.messages import MAX_BODY, WireProblem
from serving.telemetry.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Body = Callable[[], Awaitable[bytes]]  # one that has yet to come
Reply = tuple[int, bytes, bytes]  # status, content type, body
Told = tuple[int, bytes, bytes, Sequence[tuple[bytes, bytes]]]  # the same with further headers

JSON = b"application/json"
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
BODY_SECONDS = 5.0  # a client that takes longer to send its body is let go


class Route(NamedTuple):
    """How one path is answered. `scope`: what the client's key must allow; None: everybody may ask."""

    method: str
    scope: str | None
    handler: Callable[[Scope, bytes], Awaitable[Reply]]


class App:
    """Routes, probes and metrics of one worker. `ready` is false until the bundle is loaded and warm, and again when draining."""

    max_body = MAX_BODY

    def __init__(self, metrics: Metrics, guard: Guard, log: Any) -> None:
        self.metrics, self.guard, self.log = metrics, guard, log
        self.ready = False
        self.routes = {
            "/healthz": Route("GET", None, self.health),
            "/readyz": Route("GET", None, self.readiness),
            "/metrics": Route("GET", None, self.exposition),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await _not_http(scope, receive, send)
        behind = None if scope["path"] in self.routes else self.behind_of(scope)
        if behind is not None:
            return await behind(scope, receive, send)
        try:
            status, kind, body, extra = await self._reply(scope, lambda: whole_body(receive, self.max_body))
        except Disconnected:
            return None
        return await reply(scope, send, status, kind, body, extra)

    async def direct(self, scope: Scope, body: bytes) -> bytes | None:
        """The bytes of the whole HTTP/1.1 response to a whole request; None: not ours, ask by ASGI.

        What `__call__` does, without its messages: half of what a request costs outside of the engine.
        """
        if len(body) > self.max_body or (scope["path"] not in self.routes and self.behind_of(scope) is not None):
            return None

        status, kind, told, extra = await self._reply(scope, body)
        parts = [_STATUS[status], b"content-type: ", kind, b"\r\ncontent-length: ", str(len(told)).encode(), b"\r\n"]
        for name, value in extra:
            parts += name, b": ", value, b"\r\n"
        parts += (b"\r\n",) if scope["method"] == "HEAD" else (b"\r\n", told)
        return b"".join(parts)

    async def _reply(self, scope: Scope, body: bytes | Body) -> Told:
        """Status, type, body and further headers. Raises `Disconnected`."""
        path = scope["path"]
        name, route = path, self.routes.get(path)
        if route is None:
            name, route = self.with_parameter(path)
        extra: Sequence[tuple[bytes, bytes]] = ()
        try:
            handler = self._admitted(route, scope).handler
            status, kind, told = await handler(
                scope, b"" if scope["method"] != "POST" else body if isinstance(body, bytes) else await body()
            )
            extra = scope.get("reply_headers", ())
        except WireProblem as problem:
            status, kind, told, extra = problem.status, JSON, messages.error(problem), _headers(problem, route)
        except Disconnected:
            raise
        except Exception as error:
            self.log.error("request failed", route=name, exc_info=error)
            status, kind, told = 500, JSON, messages.error(WireProblem(500, "internal", "this failed inside the server: report its time"))
        self.metrics.responded(name, status)
        return status, kind, told, extra

    def behind_of(self, scope: Scope) -> Asgi | None:
        """Another application that answers what is not in the table."""
        return None

    def with_parameter(self, path: str) -> tuple[str, Route | None]:
        """The route of a path that ends in a parameter, and its name in metrics."""
        return "other", None

    async def health(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, b'{"status":"alive"}'

    async def readiness(self, _: Scope, __: bytes) -> Reply:
        if not self.ready:
            raise WireProblem(503, "not_ready", "the bundle is loading, or the server is draining: ask again", retry_after=1)
        return 200, JSON, b'{"status":"ready"}'

    async def exposition(self, _: Scope, __: bytes) -> Reply:
        body, kind = self.metrics.render()
        return 200, kind.encode(), body

    def _admitted(self, route: Route | None, scope: Scope) -> Route:
        """The route, for a client that may ask it so. Raises `WireProblem`."""
        if route is None:
            raise WireProblem(404, "not_found", f"no route {scope['path'][:128]!r}: see /openapi.json")
        asked = scope["method"]
        if asked != route.method and not (asked == "HEAD" and route.method == "GET"):
            raise WireProblem(405, "method_not_allowed", f"expected {route.method}, got {asked[:16]}")
        self.guard.admit(scope, route.scope)
        return route


class Disconnected(Exception):
    """The client went away before its request was whole."""


async def whole_body(receive: Receive, limit: int) -> bytes:
    """The body; refused with 413 above `limit` bytes and 408 when it does not come."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise WireProblem(413, "body_too_large", f"the body is over {limit} bytes: send smaller batches")
                if not message.get("more_body"):
                    return b"".join((*parts, part)) if parts else part
                parts.append(part)
    except TimeoutError:
        raise WireProblem(408, "body_timeout", f"the body did not come within {BODY_SECONDS:.0f} s: send it again") from None


async def reply(scope: Scope, send: Send, status: int, kind: bytes, body: bytes, extra: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Send a whole response."""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _headers(problem: WireProblem, route: Route | None) -> list[tuple[bytes, bytes]]:
    headers = []
    if problem.status == 405 and route is not None:
        headers.append((b"allow", route.method.encode()))
    if problem.retry_after is not None:
        headers.append((b"retry-after", b"%d" % problem.retry_after))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if problem.status in (408, 413):
        headers.append((b"connection", b"close"))
    return headers


async def _not_http(scope: Scope, receive: Receive, send: Send) -> None:
    """Start-up and shutdown messages; anything else is closed."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "websocket.close", "code": 1003})
