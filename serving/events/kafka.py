"""The event log in Kafka: an idempotent producer, acknowledged by all replicas, keyed by user so that one user's events keep their order.

The topic may hold an event twice when a client sends it again: readers know it by its event_id, and so does the user's state. What was
seen by this worker lately is counted as a duplicate here already.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from serving.events.log import LogUnavailable
from serving.messages import Event

_DELIVERY_MS = 5_000
_SEEN = 100_000  # event ids remembered


class KafkaLog:
    """`kafka://HOST:PORT[,HOST:PORT]/TOPIC`; the topic has to exist, or the brokers make it."""

    def __init__(self, url: str) -> None:
        from confluent_kafka import Producer

        parts = urlsplit(url)
        self._brokers, self._topic = parts.netloc, parts.path.strip("/") or "shortlist-events"
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._producer = Producer(
            {
                "bootstrap.servers": self._brokers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "delivery.timeout.ms": _DELIVERY_MS,
                "request.timeout.ms": _DELIVERY_MS // 2,
                "queue.buffering.max.messages": 100_000,
                "logger": None,
            }
        )

    def append(self, events: Sequence[Event]) -> list[bool]:
        from confluent_kafka import KafkaException

        failed: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(str(error))

        fresh = {event.event_id: event for event in events if event.event_id not in self._seen}
        try:
            for event in fresh.values():
                self._producer.produce(self._topic, msgspec.json.encode(event), event.user_id.encode(), on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            raise LogUnavailable(f"Kafka at {self._brokers} takes no events ({error}): check the brokers") from error
        left = self._producer.flush(_DELIVERY_MS / 1000 + 1)
        if failed or left:
            self._producer.purge()
            self._producer.flush(1)
            reason = failed[0] if failed else f"{left} not delivered in {_DELIVERY_MS} ms"
            raise LogUnavailable(f"Kafka at {self._brokers} did not take {len(failed) or left} events ({reason}): check the brokers")
        return self._counted(events, set(fresh))

    def _counted(self, events: Sequence[Event], fresh: set[str]) -> list[bool]:
        new = []
        for event in events:
            new.append(event.event_id in fresh)
            fresh.discard(event.event_id)
            self._seen[event.event_id] = None
        while len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return new

    def close(self) -> None:
        self._producer.flush(_DELIVERY_MS / 1000)
