"""The open inference protocols, answered without KServe's routing: v1 `:predict` and v2 `/infer`.

v1: {"instances": [recommendation request, …]} -> {"predictions": [recommendation, …]}.
v2: one BYTES tensor `request` of shape [n] whose elements are recommendation requests in JSON -> one BYTES tensor `response`, alike;
its binary tensor extension too.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from serving import messages
from serving.messages import MAX_ID, MAX_INSTANCES, RecommendationRequest, RecommendationResponse, WireProblem

if TYPE_CHECKING:
    pass


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


class Inferred(Struct, frozen=True, omit_defaults=True):
    """A v2 response."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None


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
    return InferRequests(requests_of(_elements(asked.inputs, tail)), asked.id, _wants_binary(asked))


def write(model_name: str, digest: str, answers: Sequence[RecommendationResponse], asked: InferRequests) -> tuple[bytes, int | None]:
    """The response and the length of its JSON part, or None when it is JSON alone."""
    told = inferred(model_name, digest, answers, asked.request_id)
    if not asked.binary:
        return messages.encode(told), None
    raw = b"".join(struct.pack("<I", len(one)) + one for one in (text.encode() for text in told.outputs[0].data or ()))
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


def _elements(inputs: Sequence[Tensor], tail: bytes) -> list[tuple[str, str, Any]]:
    """(name, datatype, data) of each tensor, those in `tail` read from there."""
    found: list[tuple[str, str, Any]] = []
    at = 0
    for one in inputs:
        size = (one.parameters or {}).get("binary_data_size")
        if size is None:
            found.append((one.name, one.datatype, one.data))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail) - at:
            raise WireProblem(422, "bad_value", f"tensor {one.name[:64]!r} does not fit the {len(tail) - at} bytes that are left", "inputs")
        found.append((one.name, one.datatype, _strings(tail[at : at + size])))
        at += size
    if at != len(tail):
        raise WireProblem(422, "bad_value", f"{len(tail) - at} bytes follow the last tensor", "inputs")
    return found


def _strings(raw: bytes) -> list[bytes]:
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


def requests_of(inputs: Sequence[tuple[str, str, Any]]) -> list[RecommendationRequest]:
    """The requests in the tensor named `request` among (name, datatype, data). Raises `WireProblem` naming the tensor or the field."""
    found = next((one for one in inputs if one[0] == "request"), None)
    if found is None:
        raise WireProblem(
            422, "missing_field", "no input tensor is named 'request': send one of type BYTES with requests in JSON", "inputs"
        )
    _, datatype, data = found
    if datatype != "BYTES" or not isinstance(data, Sequence) or isinstance(data, str | bytes) or not data:
        raise WireProblem(422, "bad_value", f"tensor 'request' has to be a list of BYTES, got {datatype[:16]!r}", "inputs.request")
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
