"""A request's body: read within a limit and a time, unpacked within the same limit."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from aiohttp import ClientError, web

from serving.messages import WireProblem

BODY_SECONDS = 5.0  # a client that takes longer to send its body is let go
_UNPACKED = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}  # coding -> zlib's window


class Disconnected(Exception):
    """The client went away before its request was whole."""


async def read_body(request: web.BaseRequest, limit: int, whole: Callable[[], None]) -> bytes:
    """The body, at most `limit` bytes; `whole` is called when it is here. Raises `Disconnected`, and `WireProblem` 400, 408 or 413."""
    content = request.content
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if content.is_eof():
        body = content.read_nowait(-1)
    else:
        body = await _coming(request, limit)
    whole()
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _coming(request: web.BaseRequest, limit: int) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if request.headers.get("expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0
            while part := await request.content.readany():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        raise _too_slow() from None
    except (web.RequestPayloadError, ClientError) as error:
        raise WireProblem(400, "bad_body", f"the body's framing cannot be read ({error}): send it with its length") from None
    except ConnectionError:
        raise Disconnected from None
    return b"".join(parts)


async def asgi_body(receive: Callable[[], Awaitable[MutableMapping[str, Any]]], limit: int) -> bytes:
    """The same of an ASGI request."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise _too_slow() from None


def unpacked(body: bytes, headers: Iterable[tuple[bytes, bytes]], limit: int) -> bytes:
    """The body without its content coding. Raises `WireProblem`: 415 for one that is not known, 413 beyond `limit`, 400 when damaged."""
    coding = next((value.strip().lower() for name, value in headers if name == b"content-encoding"), b"identity")
    if coding in (b"identity", b""):
        return body
    window = _UNPACKED.get(coding)
    if window is None:
        told = coding[:32].decode("latin-1")
        raise WireProblem(415, "unknown_coding", f"content-encoding {told!r} is not read here: send gzip, deflate, or none")
    unpack = zlib.decompressobj(window)
    try:
        plain = unpack.decompress(body, limit + 1)
    except zlib.error as error:
        raise WireProblem(400, "bad_coding", f"the body is not {coding.decode()} ({error}): send it again") from None
    if len(plain) > limit:
        raise _too_large(limit)
    if not unpack.eof or unpack.unused_data:
        raise WireProblem(400, "bad_coding", f"the body is not one whole {coding.decode()} stream: send it again")
    return plain


def _too_large(limit: int) -> WireProblem:
    return WireProblem(413, "body_too_large", f"the body is over {limit} bytes: send smaller batches")


def _too_slow() -> WireProblem:
    return WireProblem(408, "body_timeout", f"the body did not come within {BODY_SECONDS:.0f} s: send it again")
