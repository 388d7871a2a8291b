"""The open inference protocols, answered without KServe's routing: v1 `:predict` and v2 `/infer`.

v1: {"instances": [recommendation request, …]} -> {"predictions": [recommendation, …]}.
v2: one BYTES tensor `request` of shape [n] whose elements are recommendation requests in JSON -> one BYTES tensor `response`, alike;
its binary tensor extension too.
"""

import struct
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from math import prod
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from serving import messages
from serving.messages import MAX_ID, MAX_INSTANCES, RecommendationRequest, RecommendationResponse, WireProblem


class Tensor(Struct, frozen=True, omit_defaults=True):
    """A v2 tensor. Other inputs' data types are refused by name, not by type error."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Infer(Struct, frozen=True):
    """A v2 request."""

    inputs: Annotated[list[Tensor], Meta(min_length=1, max_length=8)]
    id: Annotated[str, Meta(max_length=MAX_ID)] | None = None
    outputs: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Input(NamedTuple):
    """An input tensor, wherever its elements came from."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Any


class Inferred(Struct, frozen=True, omit_defaults=True):
    """A v2 response."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None


class Described(Struct, frozen=True):
    """A tensor in a model's metadata; -1 stands for any number of elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(Struct, frozen=True):
    """What the model takes and gives; `versions`: "1" is whatever bundle is served, the digest only that one."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Described, ...]
    outputs: tuple[Described, ...]


class ServerMetadata(Struct, frozen=True):
    name: str
    version: str
    extensions: tuple[str, ...]


SERVER = ServerMetadata("shortlist", version("shortlist"), ("binary_tensor_data",))


def model_metadata(name: str, digest: str) -> ModelMetadata:
    """The same document over HTTP and gRPC."""
    return ModelMetadata(
        name, ("1", digest), "shortlist", (Described("request", "BYTES", (-1,)),), (Described("response", "BYTES", (-1,)),)
    )


class InferRequests(NamedTuple):
    """A v2 request, read."""

    requests: list[RecommendationRequest]
    request_id: str | None
    binary: bool  # is the response wanted as binary tensors?


_infer = msgspec.json.Decoder(Infer)


def read(body: bytes, head_length: int | None) -> InferRequests:
    """A v2 request whose JSON part has `head_length` bytes (None: all of it). Raises `WireProblem`."""
    asked = messages.decode(_infer, body if head_length is None else body[:head_length])
    tail = b"" if head_length is None else body[head_length:]
    only_response(asked.outputs)
    return InferRequests(requests_of(_elements(asked.inputs, tail)), asked.id, _wants_binary(asked))


def write(model_name: str, digest: str, answers: Sequence[RecommendationResponse], asked: InferRequests) -> tuple[bytes, int | None]:
    """The response and the length of its JSON part, or None when it is JSON alone."""
    told = inferred(model_name, digest, answers, asked.request_id)
    if not asked.binary:
        return messages.encode(told), None
    raw = packed([text.encode() for text in told.outputs[0].data or ()])
    output = Tensor("response", told.outputs[0].shape, "BYTES", None, {"binary_data_size": len(raw)})
    head = messages.encode(msgspec.structs.replace(told, outputs=[output]))
    return head + raw, len(head)


def head_length(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> int | None:
    """Length of a v2 request's JSON part when tensors follow it in binary. Raises `WireProblem` when it is not one."""
    text = next((value for name, value in headers if name == b"inference-header-content-length"), None)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 9 or int(text) > len(body):
        raise WireProblem(400, "bad_header", "inference-header-content-length is not the length of the body's JSON part: correct it")
    return int(text)


def only_response(outputs: Sequence[Any] | None) -> None:
    """Raises `WireProblem` when another output is asked for than there is."""
    for one in outputs or ():
        name = one.get("name") if isinstance(one, dict) else None
        if name != "response":
            raise WireProblem(422, "bad_value", f"there is no output {str(name)[:64]!r}: ask for 'response', or name none", "outputs")


def _elements(inputs: Sequence[Tensor], tail: bytes) -> list[Input]:
    """Each tensor, those in `tail` read from there."""
    found: list[Input] = []
    at = 0
    for one in inputs:
        size = (one.parameters or {}).get("binary_data_size")
        if size is None:
            found.append(Input(one.name, one.datatype, one.shape, one.data))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail) - at:
            raise WireProblem(422, "bad_value", f"tensor {one.name[:64]!r} does not fit the {len(tail) - at} bytes that are left", "inputs")
        found.append(Input(one.name, one.datatype, one.shape, elements(tail[at : at + size])))
        at += size
    if at != len(tail):
        raise WireProblem(422, "bad_value", f"{len(tail) - at} bytes follow the last tensor", "inputs")
    return found


def packed(parts: Sequence[bytes]) -> bytes:
    """A BYTES tensor's elements, as `elements` reads them."""
    return b"".join(struct.pack("<I", len(one)) + one for one in parts)


def elements(raw: bytes) -> list[bytes]:
    """Elements of a BYTES tensor: each a little-endian length of four bytes, then its bytes."""
    found = []
    at = 0
    while at < len(raw):
        if len(raw) - at < 4 or (length := int.from_bytes(raw[at : at + 4], "little")) > len(raw) - at - 4:
            raise WireProblem(422, "bad_value", "a BYTES tensor ends within an element", "inputs")
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _wants_binary(asked: Infer) -> bool:
    outputs = [one.get("parameters") for one in asked.outputs or () if isinstance(one, dict)]
    named = [one.get("binary_data") for one in outputs if isinstance(one, dict)]
    return bool(named[0]) if named and named[0] is not None else bool((asked.parameters or {}).get("binary_data_output"))


def requests_of(inputs: Sequence[Input]) -> list[RecommendationRequest]:
    """The requests in the tensor named `request`. Raises `WireProblem` naming the tensor or the field."""
    found = next((one for one in inputs if one.name == "request"), None)
    if found is None:
        raise WireProblem(
            422, "missing_field", "no input tensor is named 'request': send one of type BYTES with requests in JSON", "inputs"
        )
    _, datatype, shape, data = found
    if datatype != "BYTES" or not isinstance(data, Sequence) or isinstance(data, str | bytes) or not data:
        raise WireProblem(422, "bad_value", f"tensor 'request' has to be a list of BYTES, got {datatype[:16]!r}", "inputs.request")
    if any(size < 0 for size in shape) or prod(shape) != len(data):
        told = f"tensor 'request' has shape {list(shape)[:8]} and {len(data)} elements: they have to agree"
        raise WireProblem(422, "bad_value", told, "inputs.request.shape")
    if len(data) > MAX_INSTANCES:
        raise WireProblem(422, "bad_value", f"{len(data)} requests in one call, at most {MAX_INSTANCES} are taken", "inputs.request")
    if not all(isinstance(one, str | bytes) for one in data):
        raise WireProblem(422, "bad_value", "an element of tensor 'request' is not a string: encode each request as JSON", "inputs.request")
    return [messages.decode(messages.recommendation, _utf8(one)) for one in data]


def inferred(model_name: str, digest: str, answers: Sequence[RecommendationResponse], request_id: str | None) -> Inferred:
    """A v2 response; `parameters.model_version` is what a canary's analysis tells releases apart by."""
    told = [messages.encode(answer).decode() for answer in answers]
    return Inferred(
        model_name, digest, [Tensor("response", [len(told)], "BYTES", told)], request_id, {"bundle": digest, "model_version": digest}
    )


def _utf8(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise WireProblem(400, "bad_json", "an element of tensor 'request' is not text in UTF-8", "inputs.request") from None
