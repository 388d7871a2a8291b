"""`python -m serving --bundle DIR --system shop`: the server on KServe.

Our door opens first (a second or two after the start); KServe, whose import takes some four seconds, joins behind it: its v1, v2 and
gRPC endpoints, metadata and repository, for the model `shortlist-<system>`. Inference over HTTP never passes through its routing.
"""
# ruff: noqa: E402 -- the number of threads is set before numpy is imported

import os
import sys

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # one process a core: before numpy is imported
    os.environ.setdefault(_threads, "1")
if "--share-port" not in sys.argv:  # only a supervisor's workers share counters; Feast sets this for whatever it starts
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

import asyncio
import gc
from time import perf_counter
from typing import Any

from serving.http.routes import Api
from serving.worker.options import Options, parse
from serving.worker.run import run_server

_SWITCH_SECONDS = 0.0005  # while KServe is imported in its thread, the loop gets the interpreter back this often


async def behind(door: Api, options: Options) -> None:
    """Import KServe beside the open door, put its application behind it, and serve gRPC when asked. Runs until cancelled."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        kserve = await asyncio.to_thread(_import)
        server, application = await asyncio.to_thread(_build, kserve, door, options)
    except Exception as error:
        door.log.error("KServe cannot join", exc_info=error)
        raise
    finally:
        sys.setswitchinterval(before)
    door.behind = application
    gc.freeze()
    door.log.info("KServe joined", kserve=kserve.__version__ if hasattr(kserve, "__version__") else "", grpc_port=options.grpc_port)
    if options.grpc_port:
        from kserve.protocol.grpc.server import GRPCServer

        grpc = GRPCServer(options.grpc_port, server.dataplane, server.model_repository_extension, kwargs=_message_limits())
        try:
            await grpc.start(1)
        finally:
            await asyncio.shield(grpc.stop())


def _import() -> Any:
    """KServe parses `sys.argv` while it is imported: it gets none of ours, and no log lines of its own."""
    import logging

    given, sys.argv = sys.argv, sys.argv[:1]
    try:
        import kserve
        import kserve.model_server
    finally:
        sys.argv = given
    for name in ("kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(name).addHandler(logging.NullHandler())
    return kserve


def _build(kserve: Any, door: Api, options: Options) -> tuple[Any, Any]:
    """KServe's model server with our model, and its REST application."""
    from kserve.model_server import app
    from kserve.protocol.rest.server import RESTServer

    server = kserve.ModelServer(http_port=options.port, grpc_port=options.grpc_port, enable_latency_logging=False)
    server._register_and_check_atleast_one_model_is_ready([_model(kserve, door)])
    rest = RESTServer("kserve.model_server:app", server.dataplane, server.model_repository_extension, options.port)
    rest._register_endpoints(app)
    rest._add_exception_handlers(app)  # its timing middleware, 16 % of a request there, is left out
    return server, app


def _message_limits() -> dict[str, int]:
    from serving.messages import MAX_BODY

    return {"grpc_max_send_message_length": 4 * MAX_BODY, "grpc_max_receive_message_length": MAX_BODY}


def _model(kserve: Any, door: Api) -> Any:
    """The door as a KServe model: what gRPC requests reach, and what KServe describes."""
    from kserve.errors import InvalidInput

    from serving import messages
    from serving.http import inference

    class Shortlist(kserve.Model):
        def __init__(self) -> None:
            super().__init__(door.model_name)
            self.ready = True

        async def get_input_types(self) -> list[dict[str, Any]]:
            return [{"name": "request", "datatype": "BYTES", "shape": [-1]}]

        async def get_output_types(self) -> list[dict[str, Any]]:
            return [{"name": "response", "datatype": "BYTES", "shape": [-1]}]

        async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
            try:
                if isinstance(payload, dict):
                    asked = messages.decode(messages.instances, messages.encode(payload)).instances
                    return {"predictions": [_plain(one) for one in await door.predict(asked, perf_counter())]}
                asked = inference.requests_of([(one.name, one.datatype, _elements(one)) for one in payload.inputs])
                answers = await door.predict(asked, perf_counter())
            except messages.WireProblem as problem:
                raise InvalidInput(f"{problem.code}: {problem.message}") from None
            told = inference.inferred(door.model_name, door.digest, answers, payload.id)
            output = kserve.InferOutput(name="response", shape=told.outputs[0].shape, datatype="BYTES", data=_bytes(payload, told))
            return kserve.InferResponse(
                payload.id or door.service.request_ids(), door.model_name, [output], model_version=door.digest, parameters=told.parameters
            )

    def _plain(answer: Any) -> Any:
        import msgspec

        return msgspec.to_builtins(answer)

    def _elements(tensor: Any) -> list[Any]:
        return tensor.as_numpy().ravel().tolist() if tensor.datatype == "BYTES" else []

    def _bytes(payload: Any, told: Any) -> list[Any]:
        return [one.encode() for one in told.outputs[0].data] if payload.from_grpc else told.outputs[0].data

    return Shortlist()


if __name__ == "__main__":
    chosen = parse(sys.argv[1:])
    sys.exit(run_server(chosen, behind if chosen.kserve and chosen.role in ("fused", "recommender") else None))
