"""The v2 protocol's tensors: any bytes are an answer or a refusal, in JSON and in binary."""

import asyncio
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.http.routes import Api
from tests.serving.servers import in_process, tiny_options


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    parts = in_process(tiny_options(tmp_path_factory.mktemp("inference")))
    assert isinstance(parts.app, Api)
    yield parts.app
    for close in parts.closers:
        close()


def infer(door: Api, body: bytes, head: bytes | None) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of one call."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if head is None else [(b"inference-header-content-length", head)]
    scope = {"type": "http", "method": "POST", "path": f"/v2/models/{door.model_name}/infer", "headers": headers}
    asyncio.run(door(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def binary(*elements: bytes, **parameters: Any) -> tuple[bytes, bytes]:
    """A body with one binary tensor, and the header that says where it begins."""
    raw = b"".join(struct.pack("<I", len(one)) + one for one in elements)
    tensor = {"name": "request", "shape": [len(elements)], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    return head + raw, str(len(head)).encode()


def test_binary_in_and_json_out(door: Api) -> None:
    status, headers, body = infer(door, *binary(b'{"user_id":"u01","k":2}', b'{"user_id":"u02","k":3}'))
    assert (status, headers[b"content-type"]) == (200, b"application/json")
    assert [len(json.loads(one)["items"]) for one in json.loads(body)["outputs"][0]["data"]] == [2, 3]


def test_binary_in_and_binary_out(door: Api) -> None:
    status, headers, body = infer(door, *binary(b'{"user_id":"u01","k":2}', binary_data_output=True))
    at = int(headers[b"inference-header-content-length"])
    (length,) = struct.unpack_from("<I", body, at)
    assert (status, len(body)) == (200, at + 4 + length)
    assert json.loads(body[:at])["outputs"][0]["parameters"]["binary_data_size"] == 4 + length
    assert len(json.loads(body[at + 4 :])["items"]) == 2


@pytest.mark.parametrize("head", [b"-1", b"x", b"99999999999999", b"1e3", b""])
def test_a_header_that_is_no_length_of_the_body_is_refused(door: Api, head: bytes) -> None:
    assert infer(door, binary(b"{}")[0], head)[0] == 400


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=80), st.integers(-2, 200), st.none() | st.integers(-1, 300) | st.floats() | st.text(max_size=3))
def test_any_tail_and_any_stated_size_end_in_an_answer_or_a_refusal(door: Api, tail: bytes, shift: int, size: Any) -> None:
    tensor = {"name": "request", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    for stated in (len(head), len(head) + shift):
        assert infer(door, head + tail, str(stated).encode())[0] < 500
