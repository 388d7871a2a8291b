"""The event log on a real Kafka broker: one KRaft node on loopback, from the jars in the local Maven repository."""

import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from serving.events.consumer import Consumer
from serving.events.inbox import open_log
from serving.events.log import LogUnavailable, unpacked
from serving.exposures.log import ExposureLog
from serving.exposures.shown import Exposure
from serving.exposures.tables import read_shown
from serving.exposures.topic import ExposureTopic, received
from serving.messages import Event
from serving.query import Request
from serving.recommender import Recommender
from serving.resilience.ladder import Ladder
from serving.state.sqlite import SqliteStore
from serving.state.states import States
from serving.system import Learning
from tests.serving.servers import free_port, running, tiny_options, until
from tests.serving.tiny_bundle import DAY, load_tiny, system
from tests.serving.tiny_bundle import states as tiny_states

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
    if subprocess.run(copy, cwd=folder, capture_output=True, timeout=240, check=False).returncode:
        pytest.skip(f"Kafka's jars are not in the local Maven repository: {GET}")
    return folder / "jars"


class Broker(str):
    """HOST:PORT of a broker, and its process."""

    process: "subprocess.Popen[bytes]"


@pytest.fixture(scope="module")
def broker(jars: Path) -> Iterator[Broker]:
    """A broker of this module's own."""
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
        made = Broker(f"127.0.0.1:{port}")
        made.process = process
        yield made
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
def test_what_is_no_event_in_the_topic_is_left_out_and_said(broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from confluent_kafka import Producer

    good = msgspec.json.encode(event(1))
    wrong = [b"", b"no json", good.replace(b'"u"', b'"a\\u0000b"'), good.replace(b'"e1"', b'"' + b"x" * 300 + b'"')]
    wrong += [good.replace(b'"i"', b'"' + b"x" * 20_000 + b'"'), good.replace(b"2024", b"9999999")]
    producer = Producer({"bootstrap.servers": broker})
    for body in (*wrong, good):
        producer.produce("foreign", body)
    assert producer.flush(20) == 0
    log, states = open_log(f"kafka://{broker}/foreign"), States(SqliteStore(tmp_path / "states", 1, log="log"), None, Learning())
    consumer = Consumer(log, lambda: states)
    until(lambda: not consumer.advance(), 30)
    assert len(states.read("u").session_keys) == 1
    assert len([one for one in caplog.messages if "is no event" in one and "offset" in one]) == len(wrong)
    consumer.close()


@pytest.mark.kafka
def test_what_was_shown_reaches_a_topic_as_it_is_in_the_file(broker: str, tmp_path: Path) -> None:
    from confluent_kafka import Consumer as Reader

    exposures = ExposureLog(tmp_path / "exposures", topic=ExposureTopic(f"kafka://{broker}/shown"))
    ladder, users = Ladder(Recommender(load_tiny(tmp_path), system()), exposures=exposures), tiny_states()
    for number in range(20):
        state = users[number % len(users)]
        ladder.answer(Request(state.user_id, 10, DAY, f"r{number}"), state)
    exposures.close()
    assert exposures.counters() == {"written": 20, "dropped": 0, "failed": 0, "sent": 20, "unsent": 0}
    reader = Reader({"bootstrap.servers": broker, "group.id": "test", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    reader.subscribe(["shown"])
    found: list[Exposure] = []

    def enough() -> bool:
        found.extend(received(message.value()) for message in reader.consume(100, 0.5))
        return len(found) >= 20

    until(enough, 30)
    reader.close()
    kept = [msgspec.structs.replace(one, seq=0) for one in read_shown(tmp_path / "exposures")]
    assert sorted(found, key=lambda one: one.request_id) == sorted(kept, key=lambda one: one.request_id)


@pytest.mark.kafka
def test_a_broker_that_is_stopped_keeps_no_list_waiting_and_takes_events_again_when_it_goes_on(broker: Broker, tmp_path: Path) -> None:
    click = {"event_type": "click", "user_id": "u01", "item_id": "i100", "timestamp": "2024-10-04T12:00:00Z"}
    options = tiny_options(
        tmp_path, events=f"kafka://{broker}/stopped", state=f"sqlite:{tmp_path / 'states'}", exposures=tmp_path / "shown"
    )
    with running(options) as server, ThreadPoolExecutor(1) as beside:
        until(lambda: server.ask("POST", "/v1/events", click | {"event_id": "e1"})[0] == 200, 30)
        broker.process.send_signal(signal.SIGSTOP)
        try:
            sent = beside.submit(server.ask, "POST", "/v1/events", click | {"event_id": "e2"})
            asked = 0
            while not sent.done():
                began = monotonic()
                status, answer = server.ask("POST", "/v1/recommendations", {"user_id": f"u{asked % 40:02}"})
                assert (status, len(answer["items"])) == (200, 10)
                assert server.ask("GET", "/healthz")[0] == 200
                assert monotonic() - began < 1.0
                asked += 1
            assert (sent.result()[0], asked > 10) == (503, True)
        finally:
            broker.process.send_signal(signal.SIGCONT)
        until(lambda: server.ask("POST", "/v1/events", click | {"event_id": "e3"})[0] == 200, 30)


@pytest.mark.kafka
def test_without_a_broker_nothing_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.events.kafka._DELIVERY_MS", 1000)
    log = open_log(f"kafka://127.0.0.1:{free_port()}/events")
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1"):
        log.append([event(1)])
    log.close()
