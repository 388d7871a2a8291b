"""Real clients of the inference protocols against a running server; prints what each call gave, a line of JSON each.

`python -m tests.serving.conformance kserve|triton HOST:PORT HOST:GRPC_PORT MODEL`. Processes of their own:
importing kserve parses `sys.argv`, and both bring the protocol's messages, which protobuf takes once.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

ASK = {"user_id": "u01", "k": 2}


async def tried(client: str, call: str, made: Callable[[], Any]) -> None:
    """One call: what it gave, or how it failed."""
    try:
        told = made()
        told = await told if isinstance(told, Awaitable) else told
        print(json.dumps({"client": client, "call": call, "gave": told}), flush=True)
    except Exception as error:  # noqa: BLE001 -- whatever a client makes of an answer is what is looked for
        print(json.dumps({"client": client, "call": call, "failed": f"{type(error).__name__}: {error}"[:300]}), flush=True)


def items(text: bytes | str) -> list[str]:
    """The list; one made on a lower rung, as on a machine that has much else to do, is said to be so."""
    answer = json.loads(text)
    return [one["item_id"] for one in answer["items"]] if answer["degraded"] is None else ["degraded"]


def element() -> np.ndarray:
    return np.array([json.dumps(ASK).encode()], dtype=np.object_)


async def kserve_rest(http: str, model: str) -> None:
    import kserve

    base = f"http://{http}"
    for protocol in ("v1", "v2"):
        name = f"kserve.InferenceRESTClient {protocol}"
        client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol=protocol))
        await tried(name, "live", lambda client=client: client.is_server_live(base))
        if protocol == "v2":
            await tried(name, "ready", lambda client=client: client.is_server_ready(base))
        await tried(name, "model ready", lambda client=client: client.is_model_ready(base, model))
        for binary in (False, True) if protocol == "v2" else (False,):

            async def infer(client: Any = client, protocol: str = protocol, binary: bool = binary) -> list[str]:
                if protocol == "v1":
                    told = await client.infer(base, {"instances": [ASK]}, model_name=model)
                    return items(json.dumps(told["predictions"][0]))
                asked = kserve.InferInput("request", [1], "BYTES")
                asked.set_data_from_numpy(element(), binary_data=binary)
                request = kserve.InferRequest(model, [asked], request_id="r1", parameters={"binary_data_output": binary})
                answer = await client.infer(base, request, model_name=model)
                return items(answer.outputs[0].as_numpy().ravel()[0])

            await tried(name, "infer binary" if binary else "infer", infer)


async def kserve_grpc(address: str, model: str) -> None:
    import kserve

    name = "kserve.InferenceGRPCClient"
    client = kserve.InferenceGRPCClient(address)
    await tried(name, "live", client.is_server_live)
    await tried(name, "ready", client.is_server_ready)
    await tried(name, "model ready", lambda: client.is_model_ready(model))

    async def infer() -> list[str]:
        asked = kserve.InferInput("request", [1], "BYTES")
        asked.set_data_from_numpy(element(), binary_data=False)
        answer = await client.infer(kserve.InferRequest(model, [asked]))
        return items(answer.outputs[0].as_numpy().ravel()[0])

    await tried(name, "infer", infer)
    await client.close()


async def triton(kind: str, module: Any, address: str, model: str) -> None:
    name = f"tritonclient.{kind}"
    client = module.InferenceServerClient(address)

    def infer(binary: bool = True, out: bool | None = True, input_name: str = "request", shape: int = 1, **more: Any) -> list[str]:
        asked = module.InferInput(input_name, [shape], "BYTES")
        data = np.repeat(element(), shape)
        outputs = None
        if kind == "http":
            asked.set_data_from_numpy(data, binary_data=binary)
            outputs = [module.InferRequestedOutput("response", binary_data=out)] if out is not None else None
        else:
            asked.set_data_from_numpy(data)
        return items(client.infer(more.pop("model", model), [asked], outputs=outputs, **more).as_numpy("response").ravel()[0])

    await tried(name, "live", client.is_server_live)
    await tried(name, "ready", client.is_server_ready)
    await tried(name, "model ready", lambda: client.is_model_ready(model))
    await tried(name, "model ready, version 1", lambda: client.is_model_ready(model, "1"))
    await tried(name, "server metadata", lambda: _name(client.get_server_metadata()))
    await tried(name, "model metadata", lambda: _name(client.get_model_metadata(model)))
    await tried(name, "infer", infer)
    await tried(name, "infer, version 1", lambda: infer(model_version="1"))
    await tried(name, "infer, id", lambda: infer(request_id="abc"))
    if kind == "http":
        await tried(name, "infer, JSON in", lambda: infer(binary=False))
        await tried(name, "infer, JSON out", lambda: infer(out=False))
        await tried(name, "infer, no output named", lambda: infer(out=None))
        for coding in ("gzip", "deflate"):
            await tried(name, f"infer, {coding} in", lambda coding=coding: infer(request_compression_algorithm=coding))
        await tried(name, "infer, gzip out", lambda: infer(response_compression_algorithm="gzip"))
    await tried(name, "wrong input", lambda: infer(input_name="nope"))
    await tried(name, "unknown model", lambda: infer(model="nope"))
    client.close()


def _name(metadata: Any) -> str:
    return str(metadata["name"] if isinstance(metadata, dict) else metadata.name)


async def main(whose: str, http: str, grpc: str, model: str) -> None:
    if whose == "kserve":
        await kserve_rest(http, model)
        await kserve_grpc(grpc, model)
        return
    import tritonclient.grpc
    import tritonclient.http

    await triton("http", tritonclient.http, http, model)
    await triton("grpc", tritonclient.grpc, grpc, model)


if __name__ == "__main__":
    given, sys.argv = sys.argv[1:], sys.argv[:1]
    asyncio.run(main(*given))
