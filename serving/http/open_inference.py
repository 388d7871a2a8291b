"""The open inference protocol over gRPC, behind the same door as HTTP: same keys, rates, queue, readiness and lists.

Live, ready, metadata and infer; no repository calls, since a bundle is served to its end. The messages are KServe's generated ones, loaded
without the package around them, whose import takes four seconds of CPU and pandas with it.
"""

import importlib.util
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import grpc

from serving.http import inference
from serving.http.routes import Api
from serving.messages import MAX_BODY, WireProblem

_SERVICE = "inference.GRPCInferenceService"
_AT_A_TIME = 256  # calls, waiting ones among them
_GRACE_SECONDS = 10.0
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


@cache
def protocol_messages() -> ModuleType:
    """The protocol's message classes, from KServe's distribution."""
    package = importlib.util.find_spec("kserve")
    if package is None or package.origin is None:
        raise ValueError("gRPC needs the protocol's messages, which kserve brings: install it, or leave --grpc-port out")
    path = Path(package.origin).parent / "protocol" / "grpc" / "grpc_predict_v2_pb2.py"
    spec = importlib.util.spec_from_file_location("open_inference_messages", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be loaded: install the version of kserve that pyproject.toml names")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class GrpcServer:
    """A gRPC server around an `Api`. `shared`: workers of one supervisor listen on the port together."""

    def __init__(self, api: Api, host: str, port: int, shared: bool) -> None:
        self._api, self._pb = api, protocol_messages()
        options = [
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_receive_message_length", MAX_BODY),
            ("grpc.max_send_message_length", 64 * MAX_BODY),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_AT_A_TIME)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, self._methods()),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gRPC port {port} on {host} cannot be bound: stop what uses it, or give another --grpc-port") from error

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        """Clients are told to go elsewhere; calls in flight end."""
        await self._server.stop(_GRACE_SECONDS)

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        pb = self._pb
        calls: dict[str, tuple[Callable[[Any, Any], Awaitable[Any]], Any, str | None]] = {
            "ServerLive": (self._live, pb.ServerLiveRequest, None),
            "ServerReady": (self._ready, pb.ServerReadyRequest, None),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest, None),
            "ServerMetadata": (self._metadata, pb.ServerMetadataRequest, None),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest, None),
            "ModelInfer": (self._infer, pb.ModelInferRequest, "recommend"),
        }
        return {
            name: grpc.unary_unary_rpc_method_handler(
                self._answering(name, call, scope), request_deserializer=asked.FromString, response_serializer=_serialized
            )
            for name, (call, asked, scope) in calls.items()
        }

    def _answering(self, name: str, call: Callable[[Any, Any], Awaitable[Any]], scope: str | None) -> Any:
        """The call, for a client that may make it; what is wrong becomes a status with the problem's code and message."""

        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            status, arrived = 200, perf_counter()
            try:
                asked = {"headers": _headers(context), "arrived": arrived}
                await self._api.guard.admit(asked, scope)
                return await call(request, asked)
            except WireProblem as problem:
                status = problem.status
                code = _STATUS.get(status, grpc.StatusCode.INTERNAL)
                await context.abort(code, f"{problem.code}: {problem.message}")
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                status = 500
                self._api.log.error("request failed", route=name, exc_info=error)
                await context.abort(grpc.StatusCode.INTERNAL, "internal: this failed inside the server: report its time")
            finally:
                self._api.metrics.responded(f"grpc {name}", status)

        return answer

    async def _live(self, _: Any, __: Any) -> Any:
        return self._pb.ServerLiveResponse(live=True)

    async def _ready(self, _: Any, __: Any) -> Any:
        return self._pb.ServerReadyResponse(ready=self._api.ready)

    async def _model_ready(self, request: Any, _: Any) -> Any:
        self._known(request.name, request.version)
        return self._pb.ModelReadyResponse(ready=self._api.ready)

    async def _metadata(self, _: Any, __: Any) -> Any:
        told = inference.SERVER
        return self._pb.ServerMetadataResponse(name=told.name, version=told.version, extensions=told.extensions)

    async def _model_metadata(self, request: Any, _: Any) -> Any:
        self._known(request.name, request.version)
        told = inference.model_metadata(self._api.model_name, self._api.digest)
        tensor = self._pb.ModelMetadataResponse.TensorMetadata
        inputs, outputs = (
            [tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in side] for side in (told.inputs, told.outputs)
        )
        return self._pb.ModelMetadataResponse(
            name=told.name, versions=told.versions, platform=told.platform, inputs=inputs, outputs=outputs
        )

    async def _infer(self, request: Any, asked: Any) -> Any:
        self._known(request.model_name, request.model_version)
        inference.only_response([{"name": one.name} for one in request.outputs])
        requests = inference.requests_of(_inputs(request))
        answers = await self._api.predict(requests, asked)
        told = inference.inferred(self._api.model_name, answers[0].bundle if answers else self._api.digest, answers, request.id)
        elements = [text.encode() for text in told.outputs[0].data or ()]
        output = self._pb.ModelInferResponse.InferOutputTensor(name="response", datatype="BYTES", shape=[len(elements)])
        response = self._pb.ModelInferResponse(model_name=told.model_name, model_version=told.model_version, id=request.id)
        for name, value in (told.parameters or {}).items():
            response.parameters[name].string_param = value
        if request.raw_input_contents:  # as it was asked: beside the tensors, or in them
            response.raw_output_contents.append(inference.packed(elements))
        else:
            output.contents.bytes_contents.extend(elements)
        response.outputs.append(output)
        return response

    def _known(self, name: str, version: str) -> None:
        if name != self._api.model_name or version not in ("", "1", self._api.digest):
            told = f"no model {name[:64]!r} of version {version[:80]!r}: {self._api.model_name!r} is served, version '1' is its newest"
            raise WireProblem(404, "unknown_model", told)


def _inputs(request: Any) -> list[inference.Input]:
    """The request's tensors, with elements from beside them where they are there."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise WireProblem(422, "bad_value", f"{len(request.inputs)} tensors and {len(raw)} raw contents: give one for each", "inputs")
    return [
        inference.Input(
            one.name,
            one.datatype,
            list(one.shape),
            inference.elements(raw[place]) if raw and one.datatype == "BYTES" else list(one.contents.bytes_contents),
        )
        for place, one in enumerate(request.inputs)
    ]


def _headers(context: grpc.aio.ServicerContext[Any, Any]) -> list[tuple[bytes, bytes]]:
    pairs = context.invocation_metadata() or ()
    return [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())
