"""What Feast writes into its online store, the small reader reads: the same keys, numbers and moments as `get_online_features`."""

import math
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from serving.state.feast_row import HashRows, Layout, SqliteRows, murmur, number
from serving.state.sqlite import SqliteStore
from serving.state.states import Online, States, open_store
from serving.state.user_state import schema_key
from serving.system import Learning
from tests.serving.servers import free_port
from tests.serving.tiny_bundle import states

NAMES = {"stats": ("small", "large", "whole", "yes"), "crm": ("tier",)}
LAYOUT = Layout("tiny", "user_id", tuple(NAMES.items()))
MOMENT = datetime(2024, 3, 18, 6, tzinfo=UTC)
DAY = MOMENT.timestamp() / 86_400
ROWS = {  # by user: small, large, whole, yes; tier
    "u01": (0.0, 1e30, -7, True, 2.5),
    "u02": (-1.5, 0.1, 2**53, False, None),
    "ü 03": (None, None, 0, True, 1.0),
}


def feast_store(folder: Path, online: dict):  # type: ignore[no-untyped-def, type-arg]
    """A Feast store with two views of users, written by Feast itself."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Bool, Float32, Float64, Int64, String

    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    kinds = {"small": Float32, "large": Float64, "whole": Int64, "yes": Bool, "tier": Float32}
    views = [
        FeatureView(
            name=view,
            entities=[user],
            schema=[Field(name="user_id", dtype=String), *(Field(name=name, dtype=kinds[name]) for name in names)],
            source=FileSource(name=view, path=f"{view}.parquet", timestamp_field="event_timestamp"),
        )
        for view, names in NAMES.items()
    ]
    config = RepoConfig(
        project="tiny", provider="local", registry={"path": str(folder / "registry.db")}, offline_store={"type": "duckdb"},
        online_store=online, entity_key_serialization_version=3,
    )  # fmt: skip
    store = FeatureStore(config=config)
    store.apply([user, *views, FeatureService(name="users", features=views)])
    return store


def write(store, rows=ROWS, moment=MOMENT) -> None:  # type: ignore[no-untyped-def]
    columns = ("small", "large", "whole", "yes", "tier")
    frame = pd.DataFrame(
        [{"user_id": user, **dict(zip(columns, row, strict=True)), "event_timestamp": moment} for user, row in rows.items()]
    )
    for view, names in NAMES.items():
        store.write_to_online_store(view, frame[["user_id", *names, "event_timestamp"]])


def by_feast(store, user: str) -> list[float]:  # type: ignore[no-untyped-def]
    found = store.get_online_features(features=store.get_feature_service("users"), entity_rows=[{"user_id": user}]).to_dict()
    values = [found[name][0] for names in NAMES.values() for name in names]
    return [math.nan if value is None else float(value) for value in values]


def same(found: np.ndarray, expected: list[float]) -> None:
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, np.array(expected).astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_a_features_name_in_redis_is_hashed_as_feast_hashes_it(name: str) -> None:
    import mmh3

    assert murmur(name.encode()) == mmh3.hash(name, signed=False)


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(lambda name: "\0" not in name))
def test_a_user_is_written_into_a_key_as_feast_writes_it(user: str) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)])
    assert LAYOUT.entity_key(user) == serialize_entity_key(key, 3)


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        st.tuples(st.just("int64_val"), st.integers(-(2**63), 2**63 - 1)),
        st.tuples(st.just("int32_val"), st.integers(-(2**31), 2**31 - 1)),
        st.tuples(st.just("double_val"), st.floats(allow_nan=False)),
        st.tuples(st.just("float_val"), st.floats(width=32, allow_nan=False)),
        st.tuples(st.just("bool_val"), st.booleans()),
    )
)
def test_a_number_is_what_protobuf_reads(told: tuple[str, float]) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    assert number(Value(**dict([told])).SerializeToString()) == float(told[1])
    assert math.isnan(number(Value().SerializeToString()))
    assert math.isnan(number(Value(string_val="7").SerializeToString()))


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("sqlite")
    store = feast_store(folder, {"type": "sqlite", "path": str(folder / "online.db")})
    write(store)
    return store, folder / "online.db"


def test_sqlites_rows_are_feasts(on_sqlite) -> None:  # type: ignore[no-untyped-def]
    store, file = on_sqlite
    rows = SqliteRows(file, LAYOUT)
    for user in ROWS:
        found = rows.read(user)
        same(found.values, by_feast(store, user))
        assert found.day == pytest.approx(DAY, abs=1e-6)
    assert math.isnan(rows.read("nobody").day)
    assert np.isnan(rows.read("nobody").values).all()
    rows.close()


def test_rows_written_again_are_in_the_next_answer_and_what_is_missing_is_counted(on_sqlite, tmp_path) -> None:  # type: ignore[no-untyped-def]
    table = states()
    names = tuple(name for listed in NAMES.values() for name in listed)
    table = replace(table, feature_names=names, features=np.full((len(table), len(names)), 9, np.float32))
    file, told = tmp_path / "online.db", []
    rows = SqliteRows(file, LAYOUT)
    online = Online(schema_key(names), rows, told.append, lambda: told.append(None))
    reading = States(SqliteStore(tmp_path / "states", 1), table, Learning(), online)
    assert reading.read("u01").features.tolist() == [9] * 5  # there is no store yet: the cut's row stays
    shutil.copy(on_sqlite[1], file)
    rows._local.look_at = 0.0  # as if a quarter of a second had gone by
    assert reading.read("u01").features[[0, 2, 3, 4]].tolist() == [0, -7, 1, 2.5]
    assert reading.read("u01").schema_key == schema_key(names)

    later = feast_store(tmp_path, {"type": "sqlite", "path": str(tmp_path / "later.db")})
    write(later, {"u01": (3.0, 1.0, 4, False, 8.0)}, MOMENT + timedelta(hours=1))
    (tmp_path / "later.db").replace(file)
    rows._local.look_at = 0.0
    assert reading.read("u01").features.tolist() == [3, 1, 4, 0, 8]
    assert reading.read("u05").features.tolist() == [9] * 5
    assert told == [None, *[pytest.approx(DAY, abs=1e-6)] * 2, pytest.approx(DAY + 1 / 24, abs=1e-6), None]
    rows.close()
    reading.store.close()


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory):  # type: ignore[no-untyped-def]
    """A Redis on a port: Feast knows no socket in a folder."""
    program, port = shutil.which("redis-server"), free_port()
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    line = [program, "--port", str(port), "--save", "", "--dir", str(tmp_path_factory.mktemp("redis")), "--loglevel", "warning"]
    process = subprocess.Popen(line)
    try:
        client = redis.Redis(port=port, retry=Retry(ConstantBackoff(0.1), 300), retry_on_error=[redis.ConnectionError])
        client.ping()
        client.close()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_rediss_rows_are_feasts_and_come_in_the_states_round_trip(redis_port: int, tmp_path: Path) -> None:
    store = feast_store(tmp_path, {"type": "redis", "connection_string": f"127.0.0.1:{redis_port}"})
    write(store)
    kept = open_store(f"redis://127.0.0.1:{redis_port}/0", 5000, rows=HashRows(LAYOUT))
    watching = redis.Redis(port=redis_port)
    before = watching.info("commandstats")
    for user in ROWS:
        row = kept.get(user).row
        same(row.values, by_feast(store, user))
        assert row.day == pytest.approx(DAY, abs=1e-6)
    assert math.isnan(kept.get("nobody").row.day)
    after = watching.info("commandstats")
    assert after["cmdstat_mget"]["calls"] - before.get("cmdstat_mget", {"calls": 0})["calls"] == len(ROWS) + 1  # one with each hmget
    watching.close()
    kept.close()
