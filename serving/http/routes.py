"""The public routes, answered with little work of their own.

POST /v1/recommendations /v1/similar /v1/popular   POST /v1/events   POST /v1/items
DELETE /v1/users/{user_id} /v1/sessions/{session_id} /v1/items/{item_id}
POST /v1/safety   GET /v1/why/{request_id}   GET /openapi.json   GET / /healthz /readyz /metrics
POST /v1/models/{model}:predict   GET /v1/models[/{model}]   the first inference protocol
POST /v2/models/{model}[/versions/{version}]/infer   GET …[/ready] /v2 /v2/models /v2/health/{live,ready}   the second, "open" one
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from serving import messages
from serving.http import inference
from serving.http.admission import EngineQueue
from serving.http.app import JSON, App, Reply, Route, Scope
from serving.http.auth import Guard, batch_cost, list_cost
from serving.messages import Asking, Item, Predictions, RecommendationRequest, RecommendationResponse, WireProblem
from serving.query import Answer
from serving.service import Service
from serving.telemetry.metrics import Metrics
from serving.telemetry.traces import Traces
from serving.two_bundles import HEADER, Split

_WHY, _USERS, _SESSIONS, _ITEMS = "/v1/why/", "/v1/users/", "/v1/sessions/", "/v1/items/"


@dataclass(frozen=True)
class Side:
    """One bundle's way through a worker that has two."""

    service: Service
    metrics: Metrics


class Api(App):
    """The routes of a fused server or a split recommender."""

    def __init__(self, service: Service, turn: EngineQueue, metrics: Metrics, guard: Guard, traces: Traces, log: Any) -> None:
        super().__init__(metrics, guard, log)
        self.service, self.turn, self.traces = service, turn, traces
        self._sides, self._split = {service.engine.digest: Side(service, metrics)}, Split(service.engine.digest)
        self.model_name, self.digest = f"shortlist-{service.engine.system.name}", service.engine.digest
        self._document = b""
        self.routes |= {
            "/": Route("GET", None, self.health),
            "/v1/recommendations": Route("POST", "recommend", self.recommend),
            "/v1/similar": Route("POST", "recommend", self.similar),
            "/v1/popular": Route("POST", "recommend", self.popular),
            "/v1/events": Route("POST", "events", self.events),
            "/v1/items": Route("POST", "items", self.items),
            "/v1/safety": Route("POST", "safety", self.safety),
            "/openapi.json": Route("GET", None, self.document),
            **self._inference_routes(),
        }
        self._under = {
            _WHY: Route("GET", "why", self.why),
            _USERS: Route("DELETE", "erase", self.delete_user),
            _SESSIONS: Route("DELETE", "erase", self.delete_session),
            _ITEMS: Route("DELETE", "items", self.delete_item),
        }

    def stand_beside(self, side: Side, split: Split) -> None:
        """Answer from another bundle, too."""
        self._sides[side.service.engine.digest] = side
        self.divide(split)

    def divide(self, split: Split) -> None:
        if split.stable in self._sides and (not split.beside or split.beside in self._sides):
            self._split = split

    def _side(self, user_id: str, scope: Scope) -> Side:
        """Whose bundle answers the user. Sides are for counting, too: what goes wrong from here on is that bundle's."""
        digest = self._split.of(user_id)
        if len(self._sides) > 1:
            named = next((value.decode("latin-1") for name, value in scope["headers"] if name == HEADER), "")
            digest = digest if not named else f"sha256:{named.removeprefix('sha256:')}"
        side = self._sides.get(digest) or self._sides[self._split.stable]
        scope["metrics"] = side.metrics
        return side

    def _inference_routes(self) -> dict[str, Route]:
        """Version 1 of the model is the bundle that is served now, which its digest names too."""
        v1, v2 = f"/v1/models/{self.model_name}", f"/v2/models/{self.model_name}"
        routes = {
            "/v1/models": Route("GET", None, self.models),
            v1: Route("GET", None, self.ready_model),
            f"{v1}:predict": Route("POST", "recommend", self.predict_v1),
            "/v2": Route("GET", None, self.server_metadata),
            "/v2/models": Route("GET", None, self.models),
            "/v2/health/live": Route("GET", None, self.live_v2),
            "/v2/health/ready": Route("GET", None, self.ready_v2),
        }
        for model in (v2, f"{v2}/versions/1", f"{v2}/versions/{self.digest}"):
            routes[model] = Route("GET", None, self.model_metadata)
            routes[f"{model}/ready"] = Route("GET", None, self.ready_model)
            routes[f"{model}/infer"] = Route("POST", "recommend", self.predict_v2)
        return routes

    async def recommend(self, scope: Scope, body: bytes) -> Reply:
        return await self._list(scope, messages.decode(messages.recommendation, body), "recommend")

    async def similar(self, scope: Scope, body: bytes) -> Reply:
        return await self._list(scope, messages.decode(messages.similar, body), "similar")

    async def popular(self, scope: Scope, body: bytes) -> Reply:
        return await self._list(scope, messages.decode(messages.popular, body), "popular")

    async def _list(self, scope: Scope, asked: Asking, name: str) -> Reply:
        await self.guard.charge(scope, list_cost(asked))
        arrived = scope.get("arrived") or perf_counter()
        if self.traces.on:
            with self.traces.span(name, scope["headers"]):
                answer = await self._answer(asked, arrived, scope)
        else:
            answer = await self._answer(asked, arrived, scope)
        scope["metrics"].latency.observe(perf_counter() - arrived)
        return 200, JSON, messages.encode(response(answer))

    async def predict(self, asked: Sequence[RecommendationRequest], scope: Scope) -> list[RecommendationResponse]:
        """Answer each request in turn. Of `scope` are read: headers, arrived, and who asks."""
        arrived = scope.get("arrived") or perf_counter()
        await self.guard.charge(scope, sum(list_cost(one) for one in asked))
        answers = [response(await self._answer(one, arrived, scope)) for one in asked]
        scope.get("metrics", self.metrics).latency.observe(perf_counter() - arrived)
        return answers

    async def _answer(self, asked: Asking, arrived: float, scope: Scope) -> Answer:
        who = asked.who
        if who:
            await self.guard.admit_user(who, list_cost(asked))
        side = self._side(who, scope)
        answer = await self.turn.run(arrived, side.service.recommend, asked)
        side.metrics.answered(answer)
        return answer

    async def events(self, scope: Scope, body: bytes) -> Reply:
        taken, refused = messages.events(body, self.service.engine.system.event_types)
        await self.guard.charge(scope, batch_cost(len(taken) + len(refused)))
        with self.traces.span("events", scope["headers"]):
            response = await self.service.accept(taken, refused)
        for outcome, count in (("accepted", response.accepted), ("duplicate", response.duplicates), ("refused", len(refused))):
            self.metrics.events(outcome, count)
        return 200, JSON, messages.encode(response)

    async def items(self, scope: Scope, body: bytes) -> Reply:
        items = messages.decode(messages.item_batch, body).items
        await self.guard.charge(scope, batch_cost(len(items)))
        return 200, JSON, messages.encode(await self.service.post_items(items))

    async def safety(self, _: Scope, body: bytes) -> Reply:
        return 200, JSON, messages.encode(await self.service.say(messages.decode(messages.safety_batch, body).messages))

    async def delete_user(self, scope: Scope, _: bytes) -> Reply:
        user_id = messages.id_of(scope["path"].removeprefix(_USERS), "user_id")
        return 200, JSON, messages.encode(await self.service.delete_user(user_id))

    async def delete_session(self, scope: Scope, _: bytes) -> Reply:
        session_id = messages.id_of(scope["path"].removeprefix(_SESSIONS), "session_id")
        return 200, JSON, messages.encode(await self.service.delete_user(messages.whose("", session_id)))

    async def delete_item(self, scope: Scope, _: bytes) -> Reply:
        item_id = messages.id_of(scope["path"].removeprefix(_ITEMS), "item_id")
        return 200, JSON, messages.encode(await self.service.delete_item(item_id))

    async def why(self, scope: Scope, _: bytes) -> Reply:
        request_id = scope["path"].removeprefix(_WHY)
        found = await self.service.why(request_id)
        side = self._sides.get(found["bundle"])
        if side is not None and side.service is not self.service:  # whose bundle it was knows more of it
            found = await side.service.why(request_id)
        return 200, JSON, messages.encode(found)

    async def document(self, _: Scope, __: bytes) -> Reply:
        if not self._document:
            from serving.http.openapi import document

            self._document = messages.encode(document(self.service.engine.system, self.model_name, self.service.engine.some_item()))
        return 200, JSON, self._document

    async def predict_v1(self, scope: Scope, body: bytes) -> Reply:
        asked = messages.decode(messages.instances, body).instances
        return 200, JSON, messages.encode(Predictions(await self.predict(asked, scope)))

    async def predict_v2(self, scope: Scope, body: bytes) -> Reply:
        asked = inference.read(body, inference.head_length(scope["headers"], body))
        answers = await self.predict(asked.requests, scope)
        told, head = inference.write(self.model_name, answers[0].bundle if answers else self.digest, answers, asked)
        if head is not None:
            scope["reply_headers"] = [(b"inference-header-content-length", b"%d" % head)]
        return 200, JSON if head is None else b"application/octet-stream", told

    async def live_v2(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, b'{"live":true}'

    async def ready_v2(self, scope: Scope, _: bytes) -> Reply:
        await self.readiness(scope, b"")
        return 200, JSON, b'{"ready":true}'

    async def ready_model(self, scope: Scope, _: bytes) -> Reply:
        await self.readiness(scope, b"")
        return 200, JSON, messages.encode({"name": self.model_name, "ready": True})

    async def models(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, messages.encode({"models": [self.model_name]})

    async def server_metadata(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, messages.encode(inference.SERVER)

    async def model_metadata(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, messages.encode(inference.model_metadata(self.model_name, self.digest))

    def problem(self, scope: Scope, problem: WireProblem) -> bytes:
        """The inference protocols' clients read an error as one string."""
        if scope["path"].startswith(("/v2", "/v1/models")):
            return messages.encode(messages.InferenceError(f"{problem.code}: {problem.message}"))
        return super().problem(scope, problem)

    async def health(self, _: Scope, __: bytes) -> Reply:
        if self.service.inbox is not None and not self.service.inbox.alive:
            raise WireProblem(503, "broken", "the event writer stopped: restart this server")
        return await super().health(_, __)

    async def exposition(self, _: Scope, __: bytes) -> Reply:
        if self.service.inbox is not None:
            self.metrics.behind.set(self.service.inbox.behind)
        for side in self._sides.values():
            side.metrics.flush()
        return await super().exposition(_, __)

    def with_parameter(self, path: str) -> tuple[str, Route | None]:
        return next(((prefix, route) for prefix, route in self._under.items() if path.startswith(prefix)), ("other", None))


def response(answer: Answer) -> RecommendationResponse:
    """The answer as it goes on the wire."""
    items = [Item(item.item_id, round(item.score, 6), item.sources, item.reason) for item in answer.items]
    return RecommendationResponse(answer.request_id, answer.bundle, items, answer.degraded, answer.arm, round(answer.took_ms, 3))
