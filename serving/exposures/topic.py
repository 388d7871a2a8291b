"""Slim exposure records on a Kafka topic, beside the file: what learning reads where many machines answer.

A message's key is the request id, its value what `Sent` holds in MessagePack. Nothing waits for the brokers: what they do not take in time
is counted as `unsent`, and stands in this machine's file all the same.
"""

from typing import Any
from urllib.parse import urlsplit

import msgspec

from serving.events.kafka import producer_of
from serving.exposures.shown import Exposure, ShownList, exposure
from serving.exposures.tables import AnsweredBy


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """One message."""

    bundle: str
    kinds: tuple[str, ...]
    shown: msgspec.Raw  # a `ShownList`


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Sent).decode
_shown = msgspec.msgpack.Decoder(ShownList).decode


class ExposureTopic:
    """`kafka://HOST:PORT[,HOST:PORT]/TOPIC`; used by the thread that writes the exposures."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._topic = parts.path.strip("/")
        if parts.scheme != "kafka" or not parts.netloc or not self._topic:
            raise ValueError(f"exposures go to no {url!r}: write kafka://HOST:PORT/TOPIC")
        self._producer: Any = producer_of(parts.netloc)
        self.sent = self.unsent = 0

    def add(self, records: list[tuple[str, AnsweredBy, bytes]]) -> None:
        """Hand records (request id, release, slim record) on; never waits."""
        for request_id, release, shown in records:
            try:
                value = _encode(Sent(release.bundle, release.kinds, msgspec.Raw(shown)))
                self._producer.produce(self._topic, value, request_id.encode(), on_delivery=self._delivered)
            except BufferError:  # the brokers are away, and as much waits for them as may
                self.unsent += 1
        self._producer.poll(0)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is None:
            self.sent += 1
        else:
            self.unsent += 1

    def close(self, seconds: float) -> None:
        self._producer.flush(seconds)


def received(value: bytes, seq: int = 0) -> Exposure:
    """A message of the topic as a reader of the file gets it. Raises `msgspec.DecodeError` for what is none."""
    told = _decode(value)
    return exposure(seq, _shown(told.shown), told.bundle, told.kinds)
