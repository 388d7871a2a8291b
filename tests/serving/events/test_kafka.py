"""The event log on a real Kafka broker: one KRaft node on loopback, from the jars in the local Maven repository."""

import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from serving.events.consumer import Consumer
from serving.events.inbox import open_log
from serving.events.log import LogUnavailable, unpacked
from serving.messages import Event
from serving.state.sqlite import SqliteStore
from serving.state.states import States
from serving.system import Learning
from tests.serving.servers import free_port, until

VERSION = "3.9.1"
GET = f"mvn dependency:get -Dartifact=org.apache.kafka:kafka_2.13:{VERSION}"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>none</groupId><artifactId>none</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
</dependencies></project>"""


def event(number: int, user: str = "u") -> Event:
    return Event(f"e{number}", "click", user, "i", datetime(2024, 10, 4, tzinfo=UTC))


@pytest.fixture(scope="module")
def jars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The broker's jars, from the local repository alone."""
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        pytest.skip("Maven or Java is not installed")
    folder = tmp_path_factory.mktemp("kafka")
    (folder / "pom.xml").write_text(POM)
    copy = [maven, "-o", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
    if subprocess.run(copy, cwd=folder, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip(f"Kafka's jars are not in the local Maven repository: {GET}")
    return folder / "jars"


@pytest.fixture(scope="module")
def broker(jars: Path) -> Iterator[str]:
    """HOST:PORT of a broker."""
    folder = jars.parent
    port, controller = free_port(), free_port()
    (folder / "server.properties").write_text(
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=C\n"
        f"controller.quorum.voters=1@127.0.0.1:{controller}\nlisteners=B://127.0.0.1:{port},C://127.0.0.1:{controller}\n"
        "inter.broker.listener.name=B\nlistener.security.protocol.map=B:PLAINTEXT,C:PLAINTEXT\n"
        f"log.dirs={folder / 'data'}\noffsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n"
        "transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nnum.partitions=3\n"
    )
    java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
    name = uuid.UUID(int=1).hex[:22]
    subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", name, "-c", "server.properties"], cwd=folder, check=True, capture_output=True
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*java, "kafka.Kafka", "server.properties"], cwd=folder, stdout=log, stderr=log)
    try:
        until(lambda: _listens(port), 60)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def consumed(broker: str, topic: str, count: int) -> list[tuple[bytes, int, Event]]:
    """Key, partition and event of the first `count` messages."""
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    found: list[tuple[bytes, int, Event]] = []

    def enough() -> bool:
        for message in consumer.consume(100, 0.5):
            assert message.error() is None
            found.append((message.key(), message.partition(), msgspec.json.decode(message.value(), type=Event)))
        return len(found) >= count

    until(enough, 30)
    consumer.close()
    return found


@pytest.mark.kafka
def test_events_are_in_the_topic_by_user_in_their_order_and_each_once(broker: str) -> None:
    log = open_log(f"kafka://{broker}/events")
    users = ["a", "b", "c", "d"]
    events = [event(number, users[number % 4]) for number in range(40)]
    assert log.append(events) == ["new"] * 40
    assert log.append([events[0], event(40, "a"), event(40, "a"), event(40, "b")]) == ["duplicate", "new", "duplicate", "conflict"]
    log.close()
    found = consumed(broker, "events", 41)
    assert sorted(one.event_id for _, _, one in found) == sorted(f"e{number}" for number in range(41))
    for user in users:
        own = [(partition, int(one.event_id[1:])) for key, partition, one in found if key == user.encode()]
        assert len({partition for partition, _ in own}) == 1
        assert [number for _, number in own] == sorted(number for _, number in own)


@pytest.mark.kafka
def test_states_are_folded_from_the_topic_and_again_when_they_are_lost(broker: str, tmp_path: Path) -> None:
    log = open_log(f"kafka://{broker}/states")
    for part in range(3):
        log.append([event(100 * part + number, f"u{number % 10}") for number in range(100)])
    for name in ("first", "lost"):
        states = States(SqliteStore(tmp_path / name, 1, log="log"), None, Learning())
        consumer = Consumer(log, lambda states=states: states)  # type: ignore[misc]
        until(lambda consumer=consumer: not consumer.advance(), 30)
        assert consumer.behind == 0
        assert [len(states.read(f"u{number}").session_keys) for number in range(10)] == [30] * 10
        assert states.look("u1")[1]
    log.append([event(900, "u1")])
    assert log.behind(unpacked(states.store.position())[0]) == 1
    until(lambda: not consumer.advance(), 30)
    assert len(states.read("u1").session_keys) == 31
    states.store.close()
    log.close()


@pytest.mark.kafka
def test_without_a_broker_nothing_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.events.kafka._DELIVERY_MS", 1000)
    log = open_log(f"kafka://127.0.0.1:{free_port()}/events")
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1"):
        log.append([event(1)])
    log.close()
