"""A small application: a table of routes, one body, one reply, errors that name the field. `Api` and `StageServer` build on it.

`serving.http.server` asks `respond`; `__call__` is the same as ASGI, for whatever else speaks that.
Not Litestar (2.25.0): one route and msgspec's structs take 123 to 174 us of CPU a request, decoding and encoding alone 5 to 8.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

from serving import messages
from serving.http.auth import Guard
from serving.http.body import Disconnected, asgi_body, unpacked
from serving.messages import MAX_BODY, WireProblem
from serving.telemetry.metrics import Metrics
from serving.two_bundles import Split

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Body = Callable[[], Awaitable[bytes]]  # one that has yet to come
Reply = tuple[int, bytes, bytes]  # status, content type, body
Told = tuple[int, bytes, bytes, Sequence[tuple[bytes, bytes]]]  # the same with further headers

JSON = b"application/json"


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
        self._refused_release: str | None = None
        self.routes = {
            "/healthz": Route("GET", None, self.health),
            "/readyz": Route("GET", None, self.readiness),
            "/metrics": Route("GET", None, self.exposition),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await _not_http(scope, receive, send)
        try:
            told = await self.respond(scope, lambda: asgi_body(receive, self.max_body))
        except Disconnected:
            return None
        return await reply(scope, send, *told)

    async def respond(self, scope: Scope, body: Body) -> Told:
        """Status, type, body and further headers of the answer to a request. Raises `Disconnected`.

        Of `scope` are read: method, path, headers (names in lower case) and, where it is there, arrived (perf_counter seconds).
        """
        path = scope["path"]
        name, route = path, self.routes.get(path)
        if route is None:
            name, route = self.with_parameter(path)
        extra: Sequence[tuple[bytes, bytes]] = ()
        try:
            handler = (await self._admitted(route, scope)).handler
            taken = unpacked(await body(), scope["headers"], self.max_body) if scope["method"] == "POST" else b""
            status, kind, told = await handler(scope, taken)
            extra = scope.get("reply_headers", ())
        except WireProblem as problem:
            status, kind, told, extra = problem.status, JSON, self.problem(scope, problem), _headers(problem, route)
        except Disconnected:
            raise
        except Exception as error:
            self.log.error("request failed", route=name, exc_info=error)
            failed = WireProblem(500, "internal", "this failed inside the server: report its time")
            status, kind, told = 500, JSON, self.problem(scope, failed)
        scope.get("metrics", self.metrics).responded(name, status)  # of the bundle that answered, where there are two
        return status, kind, told, extra

    def problem(self, scope: Scope, problem: WireProblem) -> bytes:
        """A problem as the client of that path reads it."""
        return messages.error(problem)

    def with_parameter(self, path: str) -> tuple[str, Route | None]:
        """The route of a path that ends in a parameter, and its name in metrics."""
        return "other", None

    async def health(self, _: Scope, __: bytes) -> Reply:
        if self._refused_release is not None:
            return 200, JSON, messages.encode({"status": "alive", "release_refused": self._refused_release})
        return 200, JSON, b'{"status":"alive"}'

    def refuse_release(self, reason: str | None) -> None:
        """Why the newest release is not what is answered from; None: it is. Said by /healthz and the metrics."""
        self._refused_release = reason
        self.metrics.release_refused.set(reason is not None)

    def divide(self, split: Split) -> None:
        """Who answers whom from now on, in an application that has two bundles."""

    async def readiness(self, _: Scope, __: bytes) -> Reply:
        if not self.ready:
            raise WireProblem(503, "not_ready", "the bundle is loading, or the server is draining: ask again", retry_after=1)
        return 200, JSON, b'{"status":"ready"}'

    async def exposition(self, _: Scope, __: bytes) -> Reply:
        body, kind = self.metrics.render()
        return 200, kind.encode(), body

    async def _admitted(self, route: Route | None, scope: Scope) -> Route:
        """The route, for a client that may ask it so. Raises `WireProblem`."""
        if route is None:
            raise WireProblem(404, "not_found", f"no route {scope['path'][:128]!r}: see /openapi.json")
        asked = scope["method"]
        if asked != route.method and not (asked == "HEAD" and route.method == "GET"):
            raise WireProblem(405, "method_not_allowed", f"expected {route.method}, got {asked[:16]}")
        await self.guard.admit(scope, route.scope)
        return route


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
