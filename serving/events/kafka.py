"""The event log in Kafka: an idempotent producer, acknowledged by all replicas, keyed by user so that one user's events keep their order.

The topic may hold an event twice when a client sends it again to another worker: readers know it by its event_id, and so does the user's
state. What was seen by this worker lately is counted as a duplicate, or refused as another event's id, here already.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import msgspec

from serving.events.log import LogUnavailable, Outcome, Part, Position, state_event
from serving.messages import Event
from serving.state.store import StateEvent

_DELIVERY_MS = 5_000
_SEEN = 100_000  # event ids remembered
_READ_SECONDS = 1.0  # of one reading; what comes later is the next one's

_decode = msgspec.json.Decoder(Event).decode
_log = logging.getLogger("serving.events")


class KafkaLog:
    """`kafka://HOST:PORT[,HOST:PORT]/TOPIC`; the topic has to exist, or the brokers make it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._brokers, self._topic = parts.netloc, parts.path.strip("/") or "shortlist-events"
        self._seen: OrderedDict[str, bytes] = OrderedDict()  # event id -> digest of its body
        self._next: dict[int, int] = {}  # partition -> the offset that is read next

    @cached_property
    def _producer(self) -> Any:
        return producer_of(self._brokers)

    @cached_property
    def _consumer(self) -> Any:
        """Positions are kept with the states, so the group is a name only: nothing is committed to the brokers."""
        from confluent_kafka import Consumer

        reading = {"group.id": "shortlist-states", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        return Consumer({"bootstrap.servers": self._brokers, "logger": None, **reading})

    def append(self, events: Sequence[Event]) -> list[Outcome]:
        fresh: dict[str, bytes] = {}
        outcomes: list[Outcome] = []
        bodies = [msgspec.json.encode(event) for event in events]
        for event, body in zip(events, bodies, strict=True):
            digest = blake2b(body, digest_size=16).digest()
            had = self._seen.get(event.event_id) or fresh.get(event.event_id)
            outcomes.append("new" if had is None else "duplicate" if had == digest else "conflict")
            if had is None:
                fresh[event.event_id] = digest
        self._produce([(event, body) for event, body, how in zip(events, bodies, outcomes, strict=True) if how == "new"])
        self._seen.update(fresh)
        while len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return outcomes

    def _produce(self, messages: Sequence[tuple[Event, bytes]]) -> None:
        """All of them are at the brokers when this returns. Raises `LogUnavailable`."""
        from confluent_kafka import KafkaException

        failed: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(str(error))

        try:
            for event, body in messages:
                self._producer.produce(self._topic, body, event.who.encode(), on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            raise LogUnavailable(f"Kafka at {self._brokers} takes no events ({error}): check the brokers") from error
        left = self._producer.flush(_DELIVERY_MS / 1000 + 1)
        if failed or left:
            self._producer.purge()
            self._producer.flush(1)
            reason = failed[0] if failed else f"{left} not delivered in {_DELIVERY_MS} ms"
            raise LogUnavailable(f"Kafka at {self._brokers} did not take {len(failed) or left} events ({reason}): check the brokers")

    def read(self, after: Position, limit: int, floor_day: float) -> Part:
        from confluent_kafka import KafkaException

        try:
            name, ends = self._ends()
            begins = self._begins(after, name, ends)
            self._assign(begins)
            events = self._consume(limit, {partition: high for partition, (_, high) in ends.items()})
        except KafkaException as error:
            self._next = {}
            raise LogUnavailable(f"Kafka at {self._brokers} cannot be read ({error}): check the brokers") from error
        at = {str(partition): offset - 1 for partition, offset in self._next.items()}
        behind = sum(max(high - self._next[partition], 0) for partition, (_, high) in ends.items())
        return Part([event for event in events if event.day >= floor_day], Position(name, at), behind)

    def behind(self, after: Position) -> int:
        from confluent_kafka import KafkaException

        try:
            name, ends = self._ends()
            begins = self._begins(after, name, ends)
            return sum(max(high - begins[partition], 0) for partition, (_, high) in ends.items())
        except KafkaException as error:
            raise LogUnavailable(f"Kafka at {self._brokers} cannot be read ({error}): check the brokers") from error

    def _ends(self) -> tuple[str, dict[int, tuple[int, int]]]:
        """The log's name, and of each partition the first offset there is and the one after the last."""
        from confluent_kafka import TopicPartition

        known = self._consumer.list_topics(self._topic, timeout=_READ_SECONDS)
        partitions = sorted(known.topics[self._topic].partitions)
        ends = {one: self._consumer.get_watermark_offsets(TopicPartition(self._topic, one), timeout=_READ_SECONDS) for one in partitions}
        return f"{known.cluster_id}/{self._topic}", ends

    def _begins(self, after: Position, name: str, ends: dict[int, tuple[int, int]]) -> dict[int, int]:
        """Where each partition is read on: after the position, or from the first entry there is, of a topic made anew too."""
        at = {int(partition): offset for partition, offset in after.at.items()} if after.log == name else {}
        begins = {partition: max(at.get(partition, -1) + 1, low) for partition, (low, _) in ends.items()}
        return {partition: begin if begin <= ends[partition][1] else ends[partition][0] for partition, begin in begins.items()}

    def _assign(self, begins: dict[int, int]) -> None:
        """Read on from there; what is read in one go needs no new start."""
        from confluent_kafka import TopicPartition

        if begins != self._next:
            self._consumer.assign([TopicPartition(self._topic, partition, offset) for partition, offset in begins.items()])
            self._next = dict(begins)

    def _consume(self, limit: int, ends: dict[int, int]) -> list[StateEvent]:
        """Up to `limit` entries, as far as the partitions went when it began."""
        events: list[StateEvent] = []
        until, taken = monotonic() + _READ_SECONDS, 0
        while taken < limit and monotonic() < until and any(self._next[one] < end for one, end in ends.items()):
            for message in self._consumer.consume(min(limit - taken, 500), 0.05):
                if message.error() is not None:
                    continue  # told again by the next look at the brokers, if it lasts
                taken += 1
                self._next[int(message.partition() or 0)] = int(message.offset() or 0) + 1
                try:
                    events.append(state_event(_decode(message.value() or b"")))
                except (msgspec.DecodeError, ValueError, OverflowError) as error:  # of a producer that is not ours: it stays in the topic
                    where = f"partition {message.partition()}, offset {message.offset()}"
                    _log.warning("left out of the states: %s of topic %s is no event (%s)", where, self._topic, error)
        return events

    def close(self) -> None:
        made = vars(self)
        if "_producer" in made:
            self._producer.flush(_DELIVERY_MS / 1000)
        if "_consumer" in made:
            self._consumer.close()


def producer_of(brokers: str) -> Any:
    """A producer of `HOST:PORT[,HOST:PORT]` that writes each message once, on all replicas; what is not there in time is given up."""
    from confluent_kafka import Producer

    return Producer(
        {
            "bootstrap.servers": brokers,
            "logger": None,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 1,
            "delivery.timeout.ms": _DELIVERY_MS,
            "request.timeout.ms": _DELIVERY_MS // 2,
            "queue.buffering.max.messages": 100_000,
        }
    )
