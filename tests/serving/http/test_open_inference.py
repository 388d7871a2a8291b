"""gRPC behind the door that HTTP has: same keys, rates and readiness; it drains, and a port that is taken ends the start."""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.http.inference import packed
from serving.http.open_inference import GrpcServer, protocol_messages
from serving.http.routes import Api
from serving.worker.assemble import Parts
from tests.serving.servers import free_port, in_process, tiny_options

MODEL = "shortlist-tiny"
ASK = b'{"user_id":"u01","k":3}'
pb = protocol_messages()


class Client:
    """The protocol's calls on one channel."""

    def __init__(self, channel: grpc.aio.Channel, key: str = "") -> None:
        self._channel, self._metadata = channel, (("x-api-key", key),) if key else ()

    async def call(self, name: str, request: Any, reply: Any) -> Any:
        path = f"/inference.GRPCInferenceService/{name}"
        made = self._channel.unary_unary(path, lambda message: message.SerializeToString(), reply.FromString)
        return await made(request, metadata=self._metadata, timeout=20)

    async def infer(
        self, *elements: bytes, model: str = MODEL, shape: list[int] | None = None, raw: bool = False, **more: Any
    ) -> list[Any]:
        tensor = pb.ModelInferRequest.InferInputTensor(name="request", datatype="BYTES", shape=shape or [len(elements)])
        request = pb.ModelInferRequest(model_name=model, **more)
        if raw:
            request.raw_input_contents.append(packed(elements))
        else:
            tensor.contents.bytes_contents.extend(elements)
        request.inputs.append(tensor)
        told = await self.call("ModelInfer", request, pb.ModelInferResponse)
        return [json.loads(one) for one in told.outputs[0].contents.bytes_contents] or [json.loads(told.raw_output_contents[0][4:])]

    async def refused(self, *elements: bytes, **more: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.infer(*elements, **more)
        return error.value.code()


class Door:
    """A worker without HTTP, and a gRPC server before it."""

    def __init__(self, parts: Parts) -> None:
        assert isinstance(parts.app, Api)
        self.parts, self.api, self.port = parts, parts.app, free_port()
        self.server = GrpcServer(self.api, "127.0.0.1", self.port, False)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")


@pytest.fixture
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Door]:
    """Parametrized with the keys file's content; none: everybody may ask."""
    changes: dict[str, Any] = {}
    if getattr(request, "param", None):
        changes["keys"] = tmp_path / "keys.json"
        changes["keys"].write_text(json.dumps(request.param))
    made = Door(in_process(tiny_options(tmp_path, **changes)))
    await made.server.start()
    yield made
    await made.server.stop()
    for close in made.parts.closers:
        close()


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": ["recommend"]} | more


KEYS = {"keys": [key("web", rate="5/hour"), key("writer", scopes=["events"])], "user_rate": "4/hour"}


@pytest.mark.parametrize("door", [KEYS], indirect=True)
async def test_the_same_keys_scopes_and_rates_hold(door: Door) -> None:
    async with door.channel() as channel:
        anybody, web = Client(channel), Client(channel, "web")
        assert (await anybody.call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)).live
        assert (await anybody.call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)).ready
        assert await anybody.refused(ASK) is grpc.StatusCode.UNAUTHENTICATED
        assert await Client(channel, "guessed").refused(ASK) is grpc.StatusCode.UNAUTHENTICATED
        assert await Client(channel, "writer").refused(ASK) is grpc.StatusCode.PERMISSION_DENIED
        assert [len(one["items"]) for one in await web.infer(ASK, ASK, ASK)] == [3, 3, 3]
        assert await web.refused(*[b'{"user_id":"u02"}'] * 5) is grpc.StatusCode.RESOURCE_EXHAUSTED  # by cost, not by call
        assert await web.refused(ASK, ASK) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_cannot_be_served_is_named_and_by_its_status(door: Door) -> None:
    async with door.channel() as channel:
        client = Client(channel)
        for refused in (
            client.refused(b'{"user_id":"a\\u0000b"}'),
            client.refused(json.dumps({"user_id": "x" * 257}).encode()),
            client.refused(json.dumps({"user_id": "x" * 20_000}).encode()),
            client.refused(b"no json"),
            client.refused(b"\xff\xfe"),
            client.refused(ASK, shape=[7]),
            client.refused(ASK, shape=[-1]),
            client.refused(*[ASK] * 65),
            client.refused(b"x" * 100, raw=True),
        ):
            assert await refused is grpc.StatusCode.INVALID_ARGUMENT
        assert await client.refused(ASK, model="other") is grpc.StatusCode.NOT_FOUND
        assert await client.refused(ASK, model_version="7") is grpc.StatusCode.NOT_FOUND
        for name in ("RepositoryModelLoad", "RepositoryModelUnload", "RepositoryIndex"):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.call(name, pb.ModelReadyRequest(name=MODEL), pb.ModelReadyResponse)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert len((await client.infer(ASK, raw=True))[0]["items"]) == 3


async def test_it_is_ready_when_http_is_and_a_call_under_way_is_answered_before_the_end(door: Door) -> None:
    hold, held = asyncio.Event(), asyncio.Event()

    async def engine(_: float) -> None:
        held.set()
        await hold.wait()

    async with door.channel() as channel, door.channel() as late:
        client = Client(channel)
        assert (await client.call("ModelReady", pb.ModelReadyRequest(name=MODEL), pb.ModelReadyResponse)).ready
        before = asyncio.create_task(door.api.turn.run(0.0, engine))
        await held.wait()
        under_way = asyncio.create_task(client.infer(ASK))
        async with asyncio.timeout(20):
            while not door.api.turn._queue:
                await asyncio.sleep(0.01)
        door.api.ready = False
        assert not (await client.call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)).ready
        stopping = asyncio.create_task(door.server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(without_end(Client(late)), 20)
        assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        hold.set()
        assert len((await under_way)[0]["items"]) == 3
        await asyncio.gather(before, stopping)


async def test_a_message_that_is_small_only_while_it_is_packed_is_refused(door: Door) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}", compression=grpc.Compression.Gzip) as channel:
        client = Client(channel)
        assert len((await client.infer(ASK))[0]["items"]) == 3
        assert await client.refused(b" " * (32 << 20) + ASK) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def without_end(client: Client) -> None:
    """Ask until it is refused, since the end has begun."""
    while True:
        await client.call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)


async def test_a_port_that_is_taken_is_said(door: Door) -> None:
    with pytest.raises(OSError, match=f"gRPC port {door.port} .*cannot be bound"):
        GrpcServer(door.api, "127.0.0.1", door.port, False)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_port_that_is_taken_ends_the_start(door: Door, tmp_path: Path, workers: int) -> None:
    options = tiny_options(tmp_path / "second", port=free_port(), grpc_port=door.port, workers=workers)
    line = [sys.executable, "-m", "serving", *options.arguments()]
    ended = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, str(door.port) in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)
