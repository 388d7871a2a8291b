"""The door: the public routes, answered with little work of their own; what is KServe's is passed on to KServe.

POST /v1/recommendations   POST /v1/events   POST /v1/items   GET /v1/why/{request_id}   GET /openapi.json
POST /v1/models/{model}:predict   POST /v2/models/{model}/infer   GET /v2/health/{live,ready}   GET /healthz /readyz /metrics
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from serving import messages
from serving.http import inference
from serving.http.admission import EngineQueue
from serving.http.app import JSON, App, Asgi, Reply, Route, Scope
from serving.http.auth import Guard
from serving.messages import Item, Predictions, RecommendationRequest, RecommendationResponse, WireProblem
from serving.query import Answer
from serving.service import Service
from serving.telemetry.metrics import Metrics
from serving.telemetry.traces import Traces

_KSERVE = ("/v1/models", "/v2")  # KServe's to answer where they are not among our routes
_WHY = "/v1/why/"


class Api(App):
    """The routes of a fused server or a split recommender."""

    def __init__(self, service: Service, turn: EngineQueue, metrics: Metrics, guard: Guard, traces: Traces, log: Any) -> None:
        super().__init__(metrics, guard, log)
        self.service, self.turn, self.traces = service, turn, traces
        self.model_name, self.digest = f"shortlist-{service.engine.system.name}", service.engine.digest
        self.behind: Asgi | None = None  # KServe's application, once it is imported
        self._document = b""
        self.routes |= {
            "/v1/recommendations": Route("POST", "recommend", self.recommend),
            "/v1/events": Route("POST", "events", self.events),
            "/v1/items": Route("POST", "items", self.items),
            "/openapi.json": Route("GET", None, self.document),
            f"/v1/models/{self.model_name}:predict": Route("POST", "recommend", self.predict_v1),
            f"/v2/models/{self.model_name}/infer": Route("POST", "recommend", self.predict_v2),
            "/v2/health/live": Route("GET", None, self.live_v2),
            "/v2/health/ready": Route("GET", None, self.ready_v2),
            f"/v2/models/{self.model_name}/ready": Route("GET", None, self.ready_v2),
        }

    async def recommend(self, scope: Scope, body: bytes) -> Reply:
        asked = messages.decode(messages.recommendation, body)
        arrived = scope.get("arrived") or perf_counter()
        if self.traces.on:
            with self.traces.span("recommend", scope["headers"]):
                answer = await self._answer(asked, arrived)
        else:
            answer = await self._answer(asked, arrived)
        self.metrics.latency.observe(perf_counter() - arrived)
        return 200, JSON, messages.encode(response(answer))

    async def predict(self, asked: Sequence[RecommendationRequest], arrived: float) -> list[RecommendationResponse]:
        """Answer each request in turn."""
        answers = [response(await self._answer(one, arrived)) for one in asked]
        self.metrics.latency.observe(perf_counter() - arrived)
        return answers

    async def _answer(self, asked: RecommendationRequest, arrived: float) -> Answer:
        self.guard.admit_user(asked.user_id)
        answer = await self.turn.run(arrived, self.service.recommend, asked)
        self.metrics.answered(answer)
        return answer

    async def events(self, scope: Scope, body: bytes) -> Reply:
        taken, refused = messages.events(body)
        with self.traces.span("events", scope["headers"]):
            response = await self.service.accept(taken, refused)
        for outcome, count in (("accepted", response.accepted), ("duplicate", response.duplicates), ("refused", len(refused))):
            self.metrics.events(outcome, count)
        return 200, JSON, messages.encode(response)

    async def items(self, _: Scope, body: bytes) -> Reply:
        return 200, JSON, messages.encode(await self.service.post_items(messages.decode(messages.item_batch, body).items))

    async def why(self, scope: Scope, _: bytes) -> Reply:
        return 200, JSON, messages.encode(self.service.why(scope["path"].removeprefix(_WHY)))

    async def document(self, _: Scope, __: bytes) -> Reply:
        if not self._document:
            from serving.http.openapi import document

            self._document = messages.encode(document(self.service.engine.system, self.model_name))
        return 200, JSON, self._document

    async def predict_v1(self, scope: Scope, body: bytes) -> Reply:
        asked = messages.decode(messages.instances, body).instances
        return 200, JSON, messages.encode(Predictions(await self.predict(asked, scope.get("arrived") or perf_counter())))

    async def predict_v2(self, scope: Scope, body: bytes) -> Reply:
        asked = inference.read(body, inference.head_length(scope["headers"], body))
        answers = await self.predict(asked.requests, scope.get("arrived") or perf_counter())
        told, head = inference.write(self.model_name, self.digest, answers, asked)
        if head is not None:
            scope["reply_headers"] = [(b"inference-header-content-length", b"%d" % head)]
        return 200, JSON if head is None else b"application/octet-stream", told

    async def live_v2(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, b'{"live":true}'

    async def ready_v2(self, scope: Scope, _: bytes) -> Reply:
        await self.readiness(scope, b"")
        name = b'"name":"%s",' % self.model_name.encode() if "/models/" in scope["path"] else b""
        return 200, JSON, b'{%s"ready":true}' % name

    async def health(self, _: Scope, __: bytes) -> Reply:
        if self.service.inbox is not None and not self.service.inbox.alive:
            raise WireProblem(503, "broken", "the event writer stopped: restart this server")
        return await super().health(_, __)

    async def exposition(self, _: Scope, __: bytes) -> Reply:
        if self.service.inbox is not None:
            self.metrics.behind.set(self.service.inbox.behind)
        return await super().exposition(_, __)

    def with_parameter(self, path: str) -> tuple[str, Route | None]:
        return (_WHY, Route("GET", "why", self.why)) if path.startswith(_WHY) else ("other", None)

    def behind_of(self, scope: Scope) -> Asgi | None:
        """KServe, for what it says of itself and its model; never what would change its repository: a bundle is served to the end."""
        reads = scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/v2/repository")
        return self.behind if reads and scope["path"].startswith(_KSERVE) else None


def response(answer: Answer) -> RecommendationResponse:
    """The answer as it goes on the wire."""
    items = [Item(item.item_id, round(item.score, 6), item.sources, item.reason) for item in answer.items]
    return RecommendationResponse(answer.request_id, answer.bundle, items, answer.degraded, answer.arm, round(answer.took_ms, 3))
