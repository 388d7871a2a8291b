"""Tables are read however their owner keeps them, and what was not given is made or missing, never guessed."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from components.data.ingest import ingest
from components.data.read import BadData, arrow_schema
from feature_repo.schema import TABLES
from serving.system import load_system
from tests.world.plain import END, plain, table_of, write

SHOP = load_system("shop")


@pytest.fixture(scope="module")
def rows():
    return plain(users=6, items=8, weeks=3)


@pytest.fixture
def expected(rows):
    return {name: table_of(name, held) for name, held in rows.items()}


def read(folder, out):
    ingest(SHOP, out, folder)
    return {name: pq.read_table(out / f"{name}.parquet") for name in TABLES}


def test_a_folder_of_parts_as_spark_leaves_it_is_one_table(expected, tmp_path):
    for name, table in expected.items():
        folder = tmp_path / "data" / f"{name}.parquet"
        folder.mkdir(parents=True)
        half = table.num_rows // 2
        pq.write_table(table.slice(0, half), folder / "part-00000.snappy.parquet")
        pq.write_table(table.slice(half), folder / "part-00001.snappy.parquet")
        (folder / "_SUCCESS").touch()
        (folder / ".part-00000.snappy.parquet.crc").write_bytes(b"crc")
    assert read(tmp_path / "data", tmp_path / "out") == expected


def test_a_column_that_only_folders_name_is_read_from_their_names(rows, expected, tmp_path):
    write({name: held for name, held in rows.items() if name != "events"}, tmp_path / "data")
    folder = tmp_path / "data" / "events" / "event_type=purchase" / "context_store=caf%C3%A9%20x"
    folder.mkdir(parents=True)
    pq.write_table(expected["events"].drop_columns(["event_type", "context_store"]), folder / "part-0.parquet")
    events = read(tmp_path / "data", tmp_path / "out")["events"]
    assert set(events["event_type"].to_pylist()) == {"purchase"}
    assert set(events["context_store"].to_pylist()) == {"café x"}
    assert events.drop_columns(["context_store"]) == expected["events"].drop_columns(["context_store"])


def test_parts_may_differ_in_the_columns_that_may_be_absent(rows, expected, tmp_path):
    write({name: held for name, held in rows.items() if name != "events"}, tmp_path / "data")
    folder = tmp_path / "data" / "events"
    folder.mkdir()
    pq.write_table(expected["events"].drop_columns(["price"]), folder / "old.parquet")
    pq.write_table(expected["events"], folder / "young.parquet")
    events = read(tmp_path / "data", tmp_path / "out")["events"]
    assert events["price"].null_count == len(events) // 2
    assert events.slice(len(events) // 2) == expected["events"]


def test_int96_is_utc_and_a_naive_time_beside_it_is_still_refused(expected, tmp_path):
    (tmp_path / "data").mkdir()
    for name, table in expected.items():
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet", use_deprecated_int96_timestamps=True)
    assert read(tmp_path / "data", tmp_path / "out") == expected
    naive = expected["events"].set_column(4, "timestamp", expected["events"]["timestamp"].cast(pa.timestamp("us")))
    pq.write_table(naive, tmp_path / "data" / "events.parquet")
    with pytest.raises(BadData, match="naive"):
        read(tmp_path / "data", tmp_path / "again")


def test_int96_of_the_year_one_does_not_overflow_into_another_time(expected, tmp_path):
    (tmp_path / "data").mkdir()
    for name, table in expected.items():
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet", use_deprecated_int96_timestamps=True)
    far = expected["events"].slice(0, 1).set_column(4, "timestamp", pa.array([END + timedelta(days=365 * 400)], pa.timestamp("us", "UTC")))
    pq.write_table(far, tmp_path / "data" / "events.parquet", use_deprecated_int96_timestamps=True)
    assert read(tmp_path / "data", tmp_path / "out")["events"]["timestamp"].to_pylist() == far["timestamp"].to_pylist()


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_keeps_ids_as_they_are_written_and_empty_cells_missing(rows, expected, tmp_path, suffix):
    odd = {"i0": "00042", "i1": "1e5", "i2": 'a "quoted", one', "i3": "NA"}
    for table in ("items", "events"):
        for row in rows[table]:
            row["item_id"] = odd.get(row["item_id"], row["item_id"])
    (tmp_path / "data").mkdir()
    for name, held in rows.items():
        with pa.output_stream(tmp_path / "data" / f"{name}{suffix}", compression="detect") as file:
            texts = [pa.compute.strftime(column, "%Y-%m-%dT%H:%M:%S+0000") if pa.types.is_timestamp(column.type) else column
                     for column in table_of(name, held).columns]  # fmt: skip
            pa.csv.write_csv(pa.table(dict(zip(TABLES[name].names, texts, strict=True))), file)
    found = read(tmp_path / "data", tmp_path / "out")
    assert found["items"] == table_of("items", rows["items"])
    assert found["events"]["item_id"].to_pylist() == [row["item_id"] for row in rows["events"]]
    assert found["events"]["context_store"].null_count == len(rows["events"])


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (("2025-02-01T00:00:00Z", "2025-02-01 00:00:00"), "zone offset"),
        (("3.5", "much"), "much"),
        (("event_type", "kind"), "lacks the column 'event_type'"),
    ],
)
def test_a_csv_that_cannot_be_read_says_what_and_how_to_write_it(rows, tmp_path, spoilt, said):
    write({name: held for name, held in rows.items() if name != "events"}, tmp_path / "data")
    text = "event_id,event_type,user_id,item_id,timestamp,price\ne1,purchase,u1,i1,2025-02-01T00:00:00Z,3.5\n"
    (tmp_path / "data" / "events.csv").write_text(text.replace(*spoilt))
    with pytest.raises(BadData, match=said):
        read(tmp_path / "data", tmp_path / "out")


def test_columns_that_may_be_empty_may_be_absent_and_are_named(rows, tmp_path):
    folder = write(rows, tmp_path / "data")
    for name, table in TABLES.items():
        needed = [column.name for column in table.columns if column.required]
        pq.write_table(pq.read_table(folder / f"{name}.parquet").select(needed), folder / f"{name}.parquet")
    found = read(folder, tmp_path / "out")
    for name, table in TABLES.items():
        assert found[name].schema == arrow_schema(table)
        assert found[name].num_rows == len(rows[name])
    assert found["items"]["category"].null_count == len(rows["items"])
    assert '"columns_absent": [' in (tmp_path / "out" / "ingest.json").read_text()


def test_without_users_and_context_the_events_say_who_there_is(rows, tmp_path):
    folder = write({name: rows[name] for name in ("events", "items")}, tmp_path / "data")
    found = read(folder, tmp_path / "out")
    assert found["users"]["user_id"].to_pylist() == sorted({row["user_id"] for row in rows["events"]})
    assert set(found["users"]["consent"].to_pylist()) == {"full"}
    assert found["context"].num_rows == 0


def test_a_table_in_two_places_and_a_folder_without_parts_are_refused(rows, tmp_path):
    folder = write(rows, tmp_path / "data")
    (folder / "events.csv").write_text("event_id\n")
    with pytest.raises(BadData, match=r"lies in both .*events\.parquet and events\.csv"):
        read(folder, tmp_path / "out")
    (folder / "events.csv").unlink()
    (folder / "items.parquet").unlink()
    (folder / "items").mkdir()
    with pytest.raises(BadData, match="holds no part files"):
        read(folder, tmp_path / "out")
