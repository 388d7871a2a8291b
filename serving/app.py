"""The door: an ASGI application that knows its few routes, answers them with little work of its own, and passes the rest on to KServe.

POST /v1/recommendations   POST /v1/events   POST /v1/items   GET /v1/why/{request_id}
GET /healthz /readyz /metrics /openapi.json
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from time import perf_counter
from typing import Any

from serving import inference, messages
from serving.messages import MAX_BODY, WireProblem
from serving.observe import Metrics, Traces
from serving.queueing import Turn
from serving.security import Guard
from serving.service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Reply = tuple[int, bytes, bytes]  # status, content type, body
Handler = Callable[[Scope, bytes], Awaitable[Reply]]

JSON = b"application/json"
_KSERVE = ("/v1/models", "/v2")  # what is KServe's to answer, when it is not one of our routes
BODY_SECONDS = 5.0  # a client that takes longer to send its body is let go


class Door:
    """Routes of one worker. `ready` is false until the bundle is loaded and warm, and again when draining."""

    def __init__(self, service: Service, turn: Turn, metrics: Metrics, guard: Guard, traces: Traces, log: Any) -> None:
        self.service, self.turn, self.metrics, self.guard, self.traces, self.log = service, turn, metrics, guard, traces, log
        self.model_name, self.digest = f"shortlist-{service.engine.system.name}", service.engine.digest
        self.ready = False
        self.openapi: Callable[[], bytes] | None = None
        self.behind: Asgi | None = None  # KServe's application, once it is imported
        self.routes: dict[str, tuple[str, str | None, Handler]] = {
            "/v1/recommendations": ("POST", "recommend", self.recommend),
            "/v1/events": ("POST", "events", self.events),
            "/healthz": ("GET", None, self.health),
            "/readyz": ("GET", None, self.readiness),
            "/metrics": ("GET", None, self.exposition),
            "/openapi.json": ("GET", None, self.document),
            f"/v1/models/{self.model_name}:predict": ("POST", "recommend", self.predict_v1),
            f"/v2/models/{self.model_name}/infer": ("POST", "recommend", self.predict_v2),
            "/v2/health/live": ("GET", None, self.live_v2),
            "/v2/health/ready": ("GET", None, self.ready_v2),
            f"/v2/models/{self.model_name}/ready": ("GET", None, self.ready_v2),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await _not_http(scope, receive, send)
        path = scope["path"]
        route = self.routes.get(path) or self._with_parameter(path)
        if self.behind is not None and ((route is None and path.startswith(_KSERVE)) or _is_binary(scope)):
            return await self._pass_on(self.behind, scope, receive, send)
        try:
            status, kind, body, extra = *(await self._answer(route, scope, receive)), ()
        except WireProblem as problem:
            status, kind, body, extra = problem.status, JSON, messages.error(problem), _headers(problem, route)
        except _Disconnected:
            return None
        except Exception as error:
            self.log.error("request failed", route=path if path in self.routes else "other", exc_info=error)
            problem = WireProblem(500, "internal", "this request failed inside the server: report its time")
            status, kind, body, extra = 500, JSON, messages.error(problem), ()
        self.metrics.responded(path if path in self.routes else "other", status)
        return await _reply(scope, send, status, kind, body, extra)

    async def _pass_on(self, behind: Asgi, scope: Scope, receive: Receive, send: Send) -> None:
        """Let KServe answer, within our limits. What changes its repository is refused: a bundle is served until its server stops."""
        try:
            if scope["path"].startswith("/v2/repository"):
                raise WireProblem(403, "forbidden", "models are not loaded or unloaded by request: start a server with the other bundle")
            self.guard.admit(scope, "recommend" if scope["method"] == "POST" else None)
            body = await _body(scope, receive)
        except WireProblem as problem:
            return await _reply(scope, send, problem.status, JSON, messages.error(problem), _headers(problem, None))
        except _Disconnected:
            return None

        async def whole() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        return await behind(scope, whole, send)

    async def _answer(self, route: tuple[str, str | None, Handler] | None, scope: Scope, receive: Receive) -> Reply:
        if route is None:
            raise WireProblem(404, "not_found", f"no route {scope['path'][:128]!r}: see /openapi.json")
        method, needed, handler = route
        asked = scope["method"]
        if asked != method and not (asked == "HEAD" and method == "GET"):
            raise WireProblem(405, "method_not_allowed", f"expected {method}, got {asked[:16]}")
        scope["client_name"] = self.guard.admit(scope, needed)
        return await handler(scope, await _body(scope, receive) if method == "POST" else b"")

    def _with_parameter(self, path: str) -> tuple[str, str | None, Handler] | None:
        return ("GET", "why", self.why) if path.startswith("/v1/why/") else None

    async def recommend(self, scope: Scope, body: bytes) -> Reply:
        asked = messages.decode(messages.recommendation, body)
        self.guard.admit_user(asked.user_id)
        began = scope.get("arrived") or perf_counter()
        with self.traces.span("recommend", scope):
            answer = await self.turn.take(began, lambda waited_ms: self.service.recommend(asked, waited_ms))
        self.metrics.answered(answer)
        self.metrics.latency.observe(perf_counter() - began)
        return 200, JSON, messages.encode(messages.response(answer))

    async def predict_v1(self, scope: Scope, body: bytes) -> Reply:
        return 200, JSON, await inference.v1(self, body, scope.get("arrived") or perf_counter())

    async def predict_v2(self, scope: Scope, body: bytes) -> Reply:
        return 200, JSON, await inference.v2(self, body, scope.get("arrived") or perf_counter())

    async def live_v2(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, b'{"live":true}'

    async def ready_v2(self, scope: Scope, _: bytes) -> Reply:
        await self.readiness(scope, b"")
        name = b'"name":"%s",' % self.model_name.encode() if "/models/" in scope["path"] else b""
        return 200, JSON, b'{%s"ready":true}' % name

    async def events(self, scope: Scope, body: bytes) -> Reply:
        taken, refused = messages.events(body)
        with self.traces.span("events", scope):
            response = await self.service.accept(taken, refused)
        for outcome, count in (("accepted", response.accepted), ("duplicate", response.duplicates), ("refused", len(refused))):
            self.metrics.events(outcome, count)
        return 200, JSON, messages.encode(response)

    async def why(self, scope: Scope, _: bytes) -> Reply:
        return 200, JSON, messages.encode(self.service.why(scope["path"].removeprefix("/v1/why/")))

    async def health(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, b'{"status":"alive"}'

    async def readiness(self, _: Scope, __: bytes) -> Reply:
        if not self.ready:
            raise WireProblem(503, "not_ready", "the bundle is loading, or the server is draining: ask again", retry_after=1)
        return 200, JSON, b'{"status":"ready"}'

    async def exposition(self, _: Scope, __: bytes) -> Reply:
        if self.service.inbox is not None:
            self.metrics.behind.set(self.service.inbox.behind)
        body, kind = self.metrics.render()
        return 200, kind.encode(), body

    async def document(self, _: Scope, __: bytes) -> Reply:
        if self.openapi is None:
            raise WireProblem(404, "not_found", "this role has no public interface")
        return 200, JSON, self.openapi()


class _Disconnected(Exception):
    """The client went away before its request was whole."""


async def _reply(scope: Scope, send: Send, status: int, kind: bytes, body: bytes, extra: Sequence[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _is_binary(scope: Scope) -> bool:
    """A v2 request with tensors in binary after its JSON: KServe's own decoder reads those."""
    return scope["path"].endswith("/infer") and any(name == b"inference-header-content-length" for name, _ in scope["headers"])


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body; refused with 413 above MAX_BODY and 408 when it does not come."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Disconnected
                part = message.get("body", b"")
                size += len(part)
                if size > MAX_BODY:
                    raise WireProblem(413, "body_too_large", f"the body is over {MAX_BODY} bytes: send smaller batches")
                if not message.get("more_body"):
                    return b"".join((*parts, part)) if parts else part
                parts.append(part)
    except TimeoutError:
        raise WireProblem(408, "body_timeout", f"the body did not come within {BODY_SECONDS:.0f} s: send it again") from None


def _headers(problem: WireProblem, route: tuple[str, str | None, Handler] | None) -> list[tuple[bytes, bytes]]:
    headers = []
    if problem.status == 405 and route is not None:
        headers.append((b"allow", route[0].encode()))
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
