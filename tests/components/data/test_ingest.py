"""A user's folder becomes the four tables, or is refused in one paragraph that says what to do."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.ingest import ingest
from components.data.read import BadData, arrow_schema
from feature_repo.schema import TABLES


@pytest.fixture
def data(world, tmp_path):
    """A copy of the world's tables that a test may spoil."""
    folder = tmp_path / "data"
    shutil.copytree(world.folder, folder)
    return folder


def change(folder, table, change_of):
    path = folder / f"{table}.parquet"
    pq.write_table(change_of(pq.read_table(path)), path)


def refusal(system, folder, out):
    with pytest.raises(BadData) as caught:
        ingest(system, out, folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_users_folder_comes_out_row_for_row_and_the_same_bytes_each_time(world, world_system, tmp_path):
    for out in (tmp_path / "one", tmp_path / "two"):
        ingest(world_system, out, world.folder)
    for name, table in TABLES.items():
        assert pq.read_table(tmp_path / "one" / f"{name}.parquet") == pq.read_table(world.folder / f"{name}.parquet").cast(
            arrow_schema(table)
        )
        assert (tmp_path / "one" / f"{name}.parquet").read_bytes() == (tmp_path / "two" / f"{name}.parquet").read_bytes()
    assert (tmp_path / "one" / "ingest.json").read_bytes() == (tmp_path / "two" / "ingest.json").read_bytes()


def test_other_types_of_the_same_kind_are_turned_into_the_schemas(data, world_system, tmp_path):
    def loosen(events):
        for name, kind in (
            ("timestamp", pa.timestamp("ns", "Europe/Berlin")),
            ("value", pa.int64()),
            ("event_type", pa.dictionary(pa.int32(), pa.string())),
            ("user_id", pa.large_string()),
        ):
            events = events.set_column(events.schema.get_field_index(name), name, events[name].cast(kind, safe=False))
        return events.append_column("note", pa.nulls(len(events)))

    expected = pq.read_table(data / "events.parquet")
    change(data, "events", loosen)
    ingest(world_system, tmp_path / "out", data)
    got = pq.read_table(tmp_path / "out" / "events.parquet")
    assert got.schema == arrow_schema(TABLES["events"])
    assert got["timestamp"].to_pylist() == expected["timestamp"].to_pylist()
    assert got["event_type"].to_pylist() == expected["event_type"].to_pylist()
    counted = json.loads((tmp_path / "out" / "ingest.json").read_text())["tables"]["events"]
    assert counted == {"rows_in": len(expected), "rows_out": len(expected), "columns_left_out": ["note"]}


def test_the_systems_own_ingest_is_called_and_counted(world, world_system, tmp_path):
    ingest(world_system, tmp_path / "out")
    counted = json.loads((tmp_path / "out" / "ingest.json").read_text())["tables"]
    assert counted["events"]["rows_in"] == counted["events"]["rows_out"] == pq.read_metadata(world.folder / "events.parquet").num_rows


def test_a_missing_folder_and_a_missing_table_are_named(data, world_system, tmp_path):
    assert "there is no folder" in refusal(world_system, tmp_path / "nowhere", tmp_path / "out")
    (data / "items.parquet").unlink()
    message = refusal(world_system, data, tmp_path / "out")
    assert message.startswith("there is no table items:")
    assert "category" in message  # says which columns to write


def test_a_wrong_column_is_named_with_the_one_it_may_have_been(data, world_system, tmp_path):
    change(data, "events", lambda events: events.rename_columns(["itemid" if name == "item_id" else name for name in events.column_names]))
    assert refusal(world_system, data, tmp_path / "out") == "the table events lacks the column 'item_id' (with what): rename 'itemid' to it"


def test_a_column_of_a_wrong_type_is_named_with_what_was_expected(data, world_system, tmp_path):
    change(data, "users", lambda users: users.set_column(0, "user_id", pa.array(range(len(users)))))
    message = refusal(world_system, data, tmp_path / "out")
    assert message.startswith("the column 'user_id' of the table users is int64, expected text")


def test_a_naive_timestamp_is_refused_and_not_guessed(data, world_system, tmp_path):
    def naive(events):
        at = events.schema.get_field_index("timestamp")
        return events.set_column(at, "timestamp", events["timestamp"].cast(pa.timestamp("us")))

    change(data, "events", naive)
    message = refusal(world_system, data, tmp_path / "out")
    assert "'timestamp' of the table events" in message
    assert "naive" in message


@pytest.mark.parametrize("kept", [0.0, 0.4, 0.98])
def test_a_truncated_parquet_is_refused(data, world_system, tmp_path, kept):
    path = data / "events.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    message = refusal(world_system, data, tmp_path / "out")
    assert "events.parquet is not a complete Parquet file" in message


def test_damage_in_the_middle_of_a_parquet_is_refused(data, world_system, tmp_path):
    path = data / "events.parquet"
    whole = bytearray(path.read_bytes())
    middle = pq.read_metadata(path).row_group(0).column(0).data_page_offset + 40
    whole[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(bytes(whole))
    assert "is not a complete Parquet file" in refusal(world_system, data, tmp_path / "out")


def test_an_empty_table_is_refused_but_an_empty_plan_is_not(data, world_system, tmp_path):
    change(data, "context", lambda context: context.slice(0, 0))
    ingest(world_system, tmp_path / "out", data)
    change(data, "items", lambda items: items.slice(0, 0))
    assert refusal(world_system, data, tmp_path / "out").startswith("the table items (")


def nameless(data, *more):
    """The events without their users."""
    change(data, "events", lambda events: events.drop_columns(["user_id", *more]))


def test_where_no_event_names_a_user_each_session_is_one(data, world_system, tmp_path):
    nameless(data)
    ingest(world_system, tmp_path / "out", data)
    events, users = (pq.read_table(tmp_path / "out" / f"{name}.parquet") for name in ("events", "users"))
    assert events.schema == arrow_schema(TABLES["events"])
    assert events["user_id"].to_pylist() == events["session_id"].to_pylist()
    assert users["user_id"].to_pylist() == sorted(set(events["session_id"].to_pylist()))
    assert set(users["consent"].to_pylist()) == {"full"}


def test_neither_user_nor_session_or_a_user_by_another_name_is_told(data, world_system, tmp_path):
    change(
        data, "events", lambda events: events.rename_columns(["customer_id" if name == "user_id" else name for name in events.column_names])
    )
    assert "rename 'customer_id' to it" in refusal(world_system, data, tmp_path / "out")
    nameless_data = data.parent / "nameless"
    change(data, "events", lambda events: events.drop_columns(["customer_id", "session_id"]))
    data.rename(nameless_data)
    assert "give the column 'user_id', or 'session_id' where users are not known" in refusal(world_system, nameless_data, tmp_path / "more")
