"""Bad rows are set aside, counted and explained; a bad table stops the run; rows in are always accepted plus set aside."""

import json
import shutil
from datetime import UTC, datetime

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.rows import column_checks, sort_out
from components.data.validate import BadTable, validate
from feature_repo.schema import TABLES
from serving.messages import recommendation


@pytest.fixture
def data(world, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(world.folder, folder)
    return folder


def edit(folder, table, **changes):
    """Replace values: column={row number: value}."""
    path = folder / f"{table}.parquet"
    held = pq.read_table(path)
    for column, values in changes.items():
        field = held.schema.field(column)
        filled = held[column].to_pylist()
        for row, value in values.items():
            filled[row] = value
        held = held.set_column(held.schema.get_field_index(column), field, pa.array(filled, field.type))
    pq.write_table(held, path)


def add(folder, table, *rows):
    """Append rows; columns not given are null."""
    path = folder / f"{table}.parquet"
    held = pq.read_table(path)
    pq.write_table(pa.concat_tables([held, pa.Table.from_pylist(list(rows), schema=held.schema)]), path)


def report(out):
    return json.loads((out / "report.json").read_text())


def test_good_tables_pass_untouched_and_leave_a_page_that_needs_no_network(world, world_system, tmp_path):
    out = tmp_path / "out"
    validate(world_system, world.folder, out)
    found = report(out)
    assert found["passed"]
    for name in TABLES:
        if name != "users":  # one of the world's consents to minimal use: of that one only the wish is kept
            assert (out / f"{name}.parquet").read_bytes() == (world.folder / f"{name}.parquet").read_bytes()
        assert pq.read_metadata(out / "quarantine" / f"{name}.parquet").num_rows == 0
        assert found["tables"][name]["accepted"] == found["tables"][name]["rows_in"]
        assert len(found["tables"][name]["expectations"]) > 5
    page = (out / "docs" / "index.html").read_text()
    assert "passed" in page
    assert "http" not in page


def test_each_kind_of_bad_row_is_set_aside_with_its_reason(data, world_system, tmp_path):
    first = pq.read_table(data / "events.parquet").slice(0, 12).to_pylist()
    edit(
        data,
        "events",
        item_id={0: "never heard of", 1: "never heard of"},
        user_id={2: "nobody"},
        value={3: -1.0, 4: float("inf")},
        event_type={5: "sneeze"},
        timestamp={6: datetime(1970, 1, 18, tzinfo=UTC)},
        event_id={7: "", 8: first[9]["event_id"]},
    )
    out = tmp_path / "out"
    held = pq.read_table(data / "events.parquet").to_pylist()
    validate(world_system, data, out)
    found = report(out)["tables"]
    reasons = found["events"]["reasons"]
    assert reasons == {
        "item_id: not in items": 2,
        "user_id: not in users": 1,
        "value: below 0": 1,
        "value: not a finite number": 1,
        "event_type: not an allowed value": 1,
        "timestamp: before 1990-01-01 or after 2100-01-01": 1,
        "event_id: empty": 1,
        "repeated key: event_id": 1,
    }
    aside = pq.read_table(out / "quarantine" / "events.parquet").to_pylist()
    kept = pq.read_table(out / "events.parquet").to_pylist()
    assert len(aside) == found["events"]["set_aside"] == sum(reasons.values())
    assert len(held) == len(kept) + len(aside)
    assert {row["reason"] for row in aside} == set(reasons)
    everything = sorted(str({name: row[name] for name in TABLES["events"].names}) for row in (*kept, *aside))
    assert everything == sorted(map(str, held))  # every row is in one of the two, as it was


def test_bad_items_and_users_are_set_aside_before_events_are_held_against_them(data, world_system, tmp_path):
    add(data, "items", {"item_id": "odd", "policy_flags": "recalled, shiny"}, {"item_id": "odder", "attributes": "{not json"})
    add(data, "users", {"user_id": "u\0", "consent": "full"}, {"user_id": "v", "consent": None})
    edit(data, "events", item_id={0: "odd"}, user_id={1: "v"})
    validate(world_system, data, tmp_path / "out")
    found = report(tmp_path / "out")["tables"]
    assert found["items"]["reasons"] == {"attributes: not JSON": 1, "policy_flags: not of the known flags": 1}
    assert found["users"]["reasons"] == {"consent: missing": 1, "user_id: holds a control character": 1}
    assert found["events"]["reasons"] == {"item_id: not in items": 1, "user_id: not in users": 1}
    assert found["events"]["examples"]["item_id: not in items"] == pq.read_table(data / "events.parquet")["event_id"][0].as_py()


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ("i" * 257, "longer than 256 characters"),
        ("https://shop.example/" + "x" * 20_000, "longer than 256 characters"),
        ("tab\there", "holds a control character"),
        ("line\n", "holds a control character"),
        ("zero\0", "holds a control character"),
        ("\x7f", "holds a control character"),
    ],
)
def test_an_id_that_nobody_could_ask_for_is_set_aside_wherever_it_stands(data, world_system, tmp_path, spoilt, reason):
    add(data, "items", {"item_id": spoilt})
    add(data, "users", {"user_id": spoilt, "consent": "full"})
    edit(data, "events", event_id={0: spoilt}, session_id={1: spoilt}, item_id={2: spoilt}, user_id={3: spoilt})
    validate(world_system, data, tmp_path / "out")
    found = {name: table["reasons"] for name, table in report(tmp_path / "out")["tables"].items()}
    assert found["items"] == {f"item_id: {reason}": 1}
    assert found["users"] == {f"user_id: {reason}": 1}
    assert found["events"] == {
        f"event_id: {reason}": 1,
        f"session_id: {reason}": 1,
        "item_id: not in items": 1,
        "user_id: not in users": 1,
    }


@pytest.mark.parametrize("odd", ["i" * 256, "日" * 256, "00042", "a/b c?d=e&f#g", "Käse-ß-日本語", " pad ", "u2028\u2028", "'; --"])
def test_the_gate_and_the_server_take_the_same_ids(data, world_system, tmp_path, odd):
    add(data, "items", {"item_id": odd})
    add(data, "users", {"user_id": odd, "consent": "full"})
    validate(world_system, data, tmp_path / "out")
    assert all(not table["set_aside"] for table in report(tmp_path / "out")["tables"].values())
    asked = recommendation.decode(json.dumps({"user_id": odd}).encode())
    assert asked.user_id == odd


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(text=WORDS | st.sampled_from(["a" * 256, "a" * 257, "\n", "a\n"]))
@settings(max_examples=300, deadline=None)
def test_any_text_is_an_id_at_both_ends_or_at_neither(text):
    import duckdb

    checks = column_checks(TABLES["users"].columns[0], refers=False)
    with duckdb.connect() as connection:
        (bad,) = connection.execute(f"SELECT {' OR '.join(f'({c})' for c, _ in checks)} FROM (SELECT ? AS user_id)", [text]).fetchone()
    try:
        recommendation.decode(json.dumps({"user_id": text}).encode())
    except msgspec.ValidationError:
        assert bad
    else:
        assert not bad


def test_more_codes_than_fit_in_a_byte_stop_the_run(data, world_system, tmp_path):
    first = pq.read_table(data / "context.parquet").slice(0, 1).to_pylist()[0]
    add(data, "context", *({**first, "place": f"place {n}", "display": f"code {n}"} for n in range(300)))
    with pytest.raises(BadTable, match=r"The table context is refused: different values of display is 30\d, expected at most 255"):
        validate(world_system, data, tmp_path / "out")


def test_of_rows_with_one_key_the_first_good_one_stays(data, world_system, tmp_path):
    edit(data, "events", event_id=dict.fromkeys((10, 20, 30), "twin"), value={10: -3.0, 20: 7.0, 30: 8.0})
    validate(world_system, data, tmp_path / "out")
    twins = [row for row in pq.read_table(tmp_path / "out" / "events.parquet").to_pylist() if row["event_id"] == "twin"]
    assert [row["value"] for row in twins] == [7.0]
    assert report(tmp_path / "out")["tables"]["events"]["reasons"] == {"repeated key: event_id": 1, "value: below 0": 1}


def test_a_plan_that_ends_before_it_begins_is_set_aside(data, world_system, tmp_path):
    begins = pq.read_table(data / "context.parquet")["valid_from"].to_pylist()
    edit(data, "context", valid_until={0: begins[0]})
    validate(world_system, data, tmp_path / "out")
    assert report(tmp_path / "out")["tables"]["context"]["reasons"] == {"valid_until: not after valid_from": 1}


def test_too_many_bad_rows_stop_the_run_with_what_how_many_and_an_example(data, world_system, tmp_path):
    rows = pq.read_metadata(data / "events.parquet").num_rows
    many = rows // 10
    edit(data, "events", value=dict.fromkeys(range(many), -1.0))
    with pytest.raises(BadTable) as caught:
        validate(world_system, data, tmp_path / "out")
    message = str(caught.value)
    first = pq.read_table(data / "events.parquet")["event_id"][0].as_py()
    assert message.startswith("The table events is refused: share set aside is ")
    assert f"{many} of {rows} rows were set aside: {many} with value: below 0 (for example {first})" in message
    assert "\n" not in message
    assert not report(tmp_path / "out")["passed"]
    assert "failed" in (tmp_path / "out" / "docs" / "index.html").read_text()


def test_a_table_of_bad_rows_only_is_refused(data, world_system, tmp_path):
    rows = pq.read_metadata(data / "users.parquet").num_rows
    edit(data, "users", consent=dict.fromkeys(range(rows), "maybe"))
    with pytest.raises(BadTable, match="The table users is refused: rows accepted is 0, expected at least 1; share set aside"):
        validate(world_system, data, tmp_path / "out")


def test_a_collapse_in_volume_against_the_last_accepted_run_stops_the_run(data, world, world_system, tmp_path):
    validate(world_system, world.folder, tmp_path / "last")
    events = pq.read_table(data / "events.parquet")
    pq.write_table(events.slice(int(len(events) * 0.6)), data / "events.parquet")
    validate(world_system, data, tmp_path / "alone")  # nothing to compare with: accepted
    with pytest.raises(BadTable, match="The table events is refused: rows accepted is"):
        validate(world_system, data, tmp_path / "out", tmp_path / "last")


def test_events_older_than_the_last_accepted_ones_stop_the_run(data, world, world_system, tmp_path):
    validate(world_system, world.folder, tmp_path / "last")
    events = pq.read_table(data / "events.parquet").sort_by("timestamp")
    pq.write_table(events.slice(0, int(len(events) * 0.9)), data / "events.parquet")
    with pytest.raises(BadTable, match="The table events is refused: newest second is"):
        validate(world_system, data, tmp_path / "out", tmp_path / "last")


def test_the_same_tables_leave_the_same_bytes(world, world_system, tmp_path):
    for out in ("one", "two"):
        validate(world_system, world.folder, tmp_path / out)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 4 + 4 + 4 + 2  # tables, quarantine, expectations, report and page
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_a_table_too_large_for_a_frame_is_judged_by_exact_counts(world, world_system, tmp_path, monkeypatch):
    import components.data.validate as module

    monkeypatch.setattr(module, "ROWS_IN_MEMORY", 10)
    validate(world_system, world.folder, tmp_path / "out")
    checks = report(tmp_path / "out")["tables"]["events"]["expectations"]
    assert {check["kwargs"]["column"] for check in checks} >= {"item_id: missing", "value: below 0", "user_id: not in users"}
    assert all(check["success"] for check in checks)


def test_counts_of_broken_promises_see_what_the_row_checks_see(data, tmp_path):
    import duckdb

    from components.data.summary import broken, compact

    edit(data, "events", value={3: -1.0, 4: -2.0}, item_id={5: "never heard of"})
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name in ("items", "users"):
        sort_out(
            connection, TABLES[name], data / f"{name}.parquet", tmp_path / f"{name}.parquet", tmp_path / "quarantine" / f"{name}.parquet"
        )
    connection.execute(f"CREATE VIEW good_events AS SELECT * FROM read_parquet('{data / 'events.parquet'}')")
    counts = broken(connection, TABLES["events"]).iloc[0].to_dict()
    frame = compact(connection, TABLES["events"])
    connection.close()
    assert {name: count for name, count in counts.items() if count} == {"value: below 0": 2, "item_id: not in items": 1}
    assert (frame["value"] < 0).sum() == 2
    assert (~frame["item_id known"]).sum() == 1
