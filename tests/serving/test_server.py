"""One real server process: the open inference protocols over HTTP and gRPC, limits, metrics, and its end."""

import json
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.serving.servers import Running, free_port, running, tiny_options, until

MODEL = "shortlist-tiny"
ASK = {"user_id": "u01", "k": 3}


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, grpc_port: int) -> Iterator[Running]:
    with running(tiny_options(tmp_path_factory.mktemp("server"), grpc_port=grpc_port)) as started:
        yield started


def ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_v1_and_v2_over_http_give_the_list_of_the_plain_route(server: Running) -> None:
    status, plain = server.ask("POST", "/v1/recommendations", ASK)
    assert status == 200
    _, v1 = server.ask("POST", f"/v1/models/{MODEL}:predict", {"instances": [ASK]})
    _, v2 = server.ask("POST", f"/v2/models/{MODEL}/infer", {"inputs": [tensor(ASK)]})
    assert ids(v1["predictions"][0]) == ids(plain)
    assert ids(json.loads(v2["outputs"][0]["data"][0])) == ids(plain)
    assert v2["model_name"] == MODEL
    assert v2["parameters"]["model_version"] == plain["bundle"]


def test_the_server_and_its_model_describe_themselves(server: Running) -> None:
    assert server.ask("GET", "/v2/health/live") == (200, {"live": True})
    assert server.ask("GET", "/v2/health/ready") == (200, {"ready": True})
    assert server.ask("GET", f"/v2/models/{MODEL}/ready") == (200, {"name": MODEL, "ready": True})
    assert server.ask("GET", f"/v1/models/{MODEL}") == (200, {"name": MODEL, "ready": True})
    assert server.ask("GET", "/v1/models") == (200, {"models": [MODEL]})
    assert server.ask("GET", "/v2")[1]["name"] == "shortlist"
    assert server.ask("GET", "/") == (200, {"status": "alive"})
    metadata = server.ask("GET", f"/v2/models/{MODEL}")[1]
    assert [one["name"] for one in metadata["inputs"] + metadata["outputs"]] == ["request", "response"]
    assert server.ask("GET", "/v2/models/other")[0] == 404


def test_requests_sent_at_once_on_one_connection_are_answered_in_their_order(server: Running) -> None:
    asked = [b'{"user_id":"u%02d","k":%d}' % (user, user) for user in range(1, 7)]
    whole = [b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body) for body in asked]
    metadata = b"GET /v2/models/%s HTTP/1.1\r\nhost: x\r\n\r\n" % MODEL.encode()
    last = b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"".join(whole[:3]) + metadata + b"".join(whole[3:5]) + whole[5][:-4])  # the last body comes later
        connection.sendall(whole[5][-4:] + last)
        said = b""
        while part := connection.recv(65_536):
            said += part
    replies = said.split(b"HTTP/1.1 200 OK\r\n")[1:]
    bodies = [reply.partition(b"\r\n\r\n")[2] for reply in replies]
    assert [len(json.loads(body)["items"]) for body in (*bodies[:3], *bodies[4:7])] == [1, 2, 3, 4, 5, 6]
    assert json.loads(bodies[3])["name"] == MODEL
    assert bodies[7] == b""
    assert b"connection: close" in replies[7].lower()


def test_requests_with_the_same_head_are_told_apart_by_their_bodies(server: Running) -> None:
    head = b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    plain = {user: ids(server.ask("POST", "/v1/recommendations", {"user_id": user, "k": 3})[1]) for user in ("u01", "u02", "u03")}
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        for user in ("u01", "u02", "u03", "u02"):
            body = b'{"user_id":"%s","k":3}' % user.encode()
            whole = head % len(body) + body
            cut = len(whole) if user != "u03" else len(whole) - 5  # the end of one body comes by itself
            connection.sendall(whole[:cut])
            if cut < len(whole):
                connection.sendall(whole[cut:])
            assert ids(json.loads(_body(connection))) == plain[user]
        whole = b"".join(head % len(body) + body for body in (b'{"user_id":"u01","k":3}', b'{"user_id":"stranger","k":3}'))
        connection.sendall(whole[:70])
        connection.sendall(whole[70:])  # the end of one and all of another
        assert ids(json.loads(_body(connection))) == plain["u01"]
        assert len(json.loads(_body(connection))["items"]) == 3
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
        assert _body(connection) + _body(connection) == b'{"status":"alive"}' * 2
        connection.sendall(head % 9 + b"no json..")
        assert json.loads(_body(connection))["error"]["code"] == "bad_json"


def _body(connection: socket.socket) -> bytes:
    """The body of the next reply, read to its end and no further."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    length = next(int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return body


def test_binary_tensors_are_read_and_written(server: Running) -> None:
    element = json.dumps(ASK).encode()
    raw = struct.pack("<I", len(element)) + element
    tensor = {"name": "request", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    status, told = server.ask("POST", f"/v2/models/{MODEL}/infer", head + raw, {"inference-header-content-length": str(len(head))})
    assert status == 200
    at = told.index(b'{"request_id"')  # the element, after the JSON head and its own length
    assert struct.unpack("<I", told[at - 4 : at]) == (len(told) - at,)
    assert ids(json.loads(told[at:])) == ids(server.ask("POST", "/v1/recommendations", ASK)[1])


async def test_grpc_gives_the_list_of_the_plain_route_and_names_what_is_wrong(server: Running, grpc_port: int) -> None:
    import grpc
    from google.protobuf.json_format import MessageToDict

    inference = _inference_stub()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        call = inference(channel)
        answer = MessageToDict(await call(json.dumps(ASK).encode()), preserving_proto_field_name=True)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b'{"user_id": 3}')
    import base64

    body = json.loads(base64.b64decode(answer["outputs"][0]["contents"]["bytes_contents"][0]))
    assert ids(body) == ids(server.ask("POST", "/v1/recommendations", ASK)[1])
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "user_id" in str(refused.value.details())


def test_models_cannot_be_unloaded_by_request(server: Running) -> None:
    assert server.ask("POST", f"/v2/repository/models/{MODEL}/unload")[0] == 404
    assert server.ask("POST", "/v1/recommendations", ASK)[0] == 200


def test_metrics_are_ours_by_bundle_and_the_processs_beside_them(server: Running) -> None:
    server.ask("POST", "/v1/recommendations", ASK)
    text = server.ask("GET", "/metrics")[1].decode()
    assert 'shortlist_rung_total{bundle="' in text
    assert "process_resident_memory_bytes" in text


def test_many_requests_on_one_connection_and_a_broken_one_between_them(server: Running) -> None:
    body = json.dumps(ASK).encode()
    good = b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with socket.create_connection(("127.0.0.1", server.port), 10) as kept:
        data = b""
        for sent, replies in ((good, 1), (good, 2), (good + good, 4)):  # the last two at once: answered in their order
            kept.sendall(sent)
            while data.count(b'"took_ms"') < replies:
                data += kept.recv(65_536)
        assert data.count(b"HTTP/1.1 200") == 4
    with socket.create_connection(("127.0.0.1", server.port), 10) as broken:
        broken.sendall(b"\x00\xff not http\r\n\r\n")
        assert broken.recv(1000)[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400")
    assert server.ask("POST", "/v1/recommendations", ASK)[0] == 200


def test_a_server_told_to_stop_finishes_and_its_events_are_there_when_it_starts_again(tmp_path: Path) -> None:
    options = tiny_options(tmp_path)
    event = {"event_id": "e1", "event_type": "purchase", "user_id": "u01", "item_id": "i100", "timestamp": "2024-10-04T12:00:00Z"}
    with running(options) as first:
        assert first.ask("POST", "/v1/events", event)[1]["accepted"] == 1
        first.process.terminate()
        assert first.process.wait(20) == 0
    with running(options) as second:
        assert "i100" in ids(second.ask("POST", "/v1/recommendations", {"user_id": "u01"})[1])
        assert second.ask("POST", "/v1/events", event)[1] == {
            "accepted": 0,
            "duplicates": 1,
            "refused": [],
            "without_effect": 0,
            "unknown_items": 0,
            "unused": {},
            "not_kept": 0,
        }


def test_a_killed_server_keeps_every_acknowledged_event_and_none_twice(tmp_path: Path) -> None:
    from serving.events.sqlite import read_log

    options = tiny_options(tmp_path)
    acknowledged: list[str] = []
    with running(options) as server:
        for number in range(60):
            batch = [
                {
                    "event_id": f"e{number}-{n}",
                    "event_type": "click",
                    "user_id": f"u{n:02}",
                    "item_id": "i100",
                    "timestamp": "2024-10-04T12:00:00Z",
                }
                for n in range(3)
            ]
            if number == 50:
                server.kill()
                break
            assert server.ask("POST", "/v1/events", {"events": batch})[1]["accepted"] == 3
            acknowledged += [one["event_id"] for one in batch]
    kept = [one.event_id for _, one in read_log(tmp_path / "events")]
    assert kept == acknowledged


def test_two_workers_share_a_port_their_states_and_their_metrics(tmp_path: Path) -> None:
    options = tiny_options(tmp_path, workers=2)
    with running(options) as server:
        event = {"event_id": "e1", "event_type": "purchase", "user_id": "u01", "item_id": "i100", "timestamp": "2024-10-04T12:00:00Z"}
        server.ask("POST", "/v1/events", event)
        answers = [server.ask("POST", "/v1/recommendations", {"user_id": "u01"})[1] for _ in range(12)]
        assert all("i100" in ids(answer) for answer in answers)
        until(lambda: _lists(server) == 12, 5)  # of the worker that is not asked a second later


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="open files are limited by prlimit: install util-linux")
def test_more_clients_than_files_may_be_open_keep_nobody_else_from_being_answered(tmp_path: Path) -> None:
    event = {"event_id": "e1", "event_type": "click", "user_id": "u01", "item_id": "i100", "timestamp": "2024-10-04T12:00:00Z"}
    with running(tiny_options(tmp_path), files=160) as server, ExitStack() as held:
        for _ in range(300):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port), 10)).sendall(
                b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
            )
        assert server.ask("POST", "/v1/recommendations", ASK)[0] == 200
        assert server.ask("POST", "/v1/events", event)[1]["accepted"] == 1
        held.close()
        assert server.ask("POST", "/v1/recommendations", ASK)[0] == 200


def _lists(server: Running) -> float:
    text = server.ask("GET", "/metrics")[1].decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("shortlist_rung_total"))


def tensor(asked: dict[str, Any]) -> dict[str, Any]:
    return {"name": "request", "shape": [1], "datatype": "BYTES", "data": [json.dumps(asked)]}


def _inference_stub() -> Any:
    """A v2 gRPC call made from the protocol's message classes; importing kserve itself would parse pytest's arguments."""
    import importlib.util
    import sys

    found = importlib.util.find_spec("kserve")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "protocol" / "grpc" / "grpc_predict_v2_pb2.py"
    spec = importlib.util.spec_from_file_location("_predict_v2", path)
    assert spec is not None
    assert spec.loader is not None
    messages = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("_predict_v2", messages)
    spec.loader.exec_module(messages)

    def on(channel: Any) -> Any:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )

        def ask(element: bytes) -> Any:
            tensor = messages.ModelInferRequest.InferInputTensor(name="request", datatype="BYTES", shape=[1])
            tensor.contents.bytes_contents.append(element)
            return call(messages.ModelInferRequest(model_name=MODEL, inputs=[tensor]))

        return ask

    return on
