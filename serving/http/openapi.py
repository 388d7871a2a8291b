"""The OpenAPI 3.1 document of the public routes, made from the message structs, with an example each."""

from collections.abc import Sequence
from typing import Any

import msgspec

from serving import messages
from serving.http import inference
from serving.system import System

_EXAMPLE_EVENT = {
    "event_id": "7f1c2a",
    "event_type": "click",
    "user_id": "718",
    "item_id": "1082185",
    "timestamp": "2017-11-27T09:30:00Z",
    "context": {"page": "home", "position": 2, "request_id": "b9cb7d26f5470000000e"},
}
_EXAMPLE_ITEM = {"item_id": "new-1", "category": "GROCERY > SNACKS", "brand": "National", "title": "OAT BAR", "price": 2.5}
_RECALL = {"item_id": "1082185", "action": "recall"}
_PROBLEMS = {
    "400": "not JSON in UTF-8",
    "401": "no key, or one that is not known",
    "403": "the key's scopes do not allow this",
    "408": "the body did not come in time",
    "413": "the body is too large",
    "415": "the body's content-encoding is not gzip, deflate or none",
    "422": "a field is unknown, missing, of the wrong type or out of range; the error names it",
    "429": "too many requests",
    "503": "not taken: send it again",
}
_REFUSED = "InferenceError"
_ID = {"type": "string", "minLength": 1, "maxLength": messages.MAX_ID}


def document(system: System, model_name: str, item_id: str) -> dict[str, Any]:
    """The whole document. `item_id`: of the catalogue, for the examples."""
    ask = {"user_id": "718", "k": system.answer_size, "context": {"device_type": "mobile"}}
    tensor = {"name": "request", "shape": [1], "datatype": "BYTES", "data": ['{"user_id": "718"}']}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Shortlist: {system.name}",
            "version": "1",
            "description": f"Short lists of {system.noun}s, and the events they learn from.",
        },
        "paths": {
            "/v1/recommendations": {"post": _post("recommend", "Ask for a list", "RecommendationRequest", "RecommendationResponse", ask)},
            "/v1/similar": {"post": _similar(item_id)},
            "/v1/popular": {
                "post": _post(
                    "popular", "Ask for what most had", "PopularRequest", "RecommendationResponse", {"context": {"region": "west"}}
                )
            },
            "/v1/events": {"post": _events()},
            "/v1/items": {"post": _post("items", "Make items retrievable", "ItemBatch", "ItemsResponse", {"items": [_EXAMPLE_ITEM]})},
            "/v1/safety": {
                "post": _post("safety", "Recall, block or hide items", "SafetyBatch", "SafetyResponse", {"messages": [_RECALL]})
            },
            **{f"/v1/{kind}s/{{{kind}_id}}": {"delete": _delete(kind)} for kind in ("user", "session", "item")},
            "/v1/why/{request_id}": {"get": _why()},
            f"/v1/models/{model_name}:predict": {
                "post": _post("predictV1", "Lists by the v1 inference protocol", "Instances", "Predictions", {"instances": [ask]}, _REFUSED)
            },
            f"/v2/models/{model_name}/infer": {
                "post": _post("inferV2", "Lists by the v2 protocol", "Infer", "Inferred", {"inputs": [tensor]}, _REFUSED)
            },
            **{path: {"get": _probe(path)} for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")},
        },
        "components": {
            "schemas": _schemas(system.event_types),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
        "security": [{}, {"key": []}, {"token": []}],
    }


def _post(name: str, summary: str, asked: str, answered: str, example: Any, error: str = "ErrorResponse") -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(asked), "example": example}}},
        "responses": {"200": _content("the answer", _ref(answered)), **_problems(error)},
    }


def _similar(item_id: str) -> dict[str, Any]:
    operation = _post("similar", "Ask for items like one", "SimilarRequest", "RecommendationResponse", {"item_id": item_id, "k": 10})
    operation["responses"]["404"] = _content("the catalogue has no such item", _ref("ErrorResponse"))
    return operation


def _events() -> dict[str, Any]:
    operation = _post("events", "Tell what users did; one event or a batch", "EventBatch", "EventsResponse", {"events": [_EXAMPLE_EVENT]})
    operation["responses"]["409"] = _content("an event_id that names another event already; nothing was changed", _ref("ErrorResponse"))
    operation["requestBody"]["content"]["application/json"]["schema"] = {"oneOf": [_ref("EventBatch"), _ref("Event")]}
    return operation


def _why() -> dict[str, Any]:
    parameter = {
        "name": "request_id",
        "in": "path",
        "required": True,
        "schema": _ID,
    }
    story = {"type": "object", "required": ["request_id", "bundle", "rung", "items"]}
    return {
        "operationId": "why",
        "summary": "How an answer came about",
        "parameters": [parameter],
        "responses": {
            "200": _content("the story of the answer", story),
            "404": _content("not in the exposure log", _ref("ErrorResponse")),
            **_problems(),
        },
    }


def _delete(kind: str) -> dict[str, Any]:
    """Of a user, a session or an item."""
    return {
        "operationId": f"delete{kind.capitalize()}",
        "summary": f"Let the {kind} be in no answer, and of no weight in one, from now on",
        "parameters": [{"name": f"{kind}_id", "in": "path", "required": True, "schema": _ID}],
        "responses": {"200": _content("it is gone; sent again it ends the same", _ref("Deleted")), **_problems()},
    }


def _probe(path: str) -> dict[str, Any]:
    error = _REFUSED if path.startswith("/v2") else "ErrorResponse"
    return {
        "operationId": path.strip("/").replace("/", "_"),
        "summary": "Probe",
        "responses": {"200": _content("yes", {"type": "object"}), "503": _content("not yet, or no longer", _ref(error))},
    }


def _problems(error: str = "ErrorResponse") -> dict[str, Any]:
    return {status: _content(meaning, _ref(error)) for status, meaning in _PROBLEMS.items()}


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(event_types: Sequence[str]) -> dict[str, Any]:
    """JSON schemas of all messages, by name: the components of the OpenAPI document. `event_types`: those the system knows."""
    kinds: list[Any] = [
        messages.RecommendationRequest,
        messages.RecommendationResponse,
        messages.SimilarRequest,
        messages.PopularRequest,
        messages.Event,
        messages.EventsResponse,
        messages.ItemBatch,
        messages.ItemsResponse,
        messages.SafetyBatch,
        messages.SafetyResponse,
        messages.Deleted,
    ]
    kinds += [
        messages.Instances,
        messages.Predictions,
        inference.Infer,
        inference.Inferred,
        messages.ErrorResponse,
        messages.InferenceError,
    ]
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    components["Event"]["properties"]["event_type"] = {"enum": list(event_types)}
    components["Event"]["required"] = ["event_id", "event_type", "item_id", "timestamp"]
    for name in ("Event", "RecommendationRequest"):
        components[name]["anyOf"] = [{"required": ["user_id"]}, {"required": ["session_id"]}]
    components["EventBatch"] = {
        "title": "EventBatch",
        "type": "object",
        "properties": {"events": {"type": "array", "maxItems": messages.MAX_BATCH, "items": {"$ref": "#/components/schemas/Event"}}},
        "required": ["events"],
        "additionalProperties": False,
    }
    return components
