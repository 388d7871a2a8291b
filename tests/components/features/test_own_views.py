"""Rows known elsewhere are read as they were known at a moment, whatever their file looks like; what cannot be read is refused by name."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.features.own_views import BadView, OwnView, copy, version

MONDAY = datetime(2024, 3, 4, tzinfo=UTC)
VIEW = OwnView("crm", None, "user_id", "when", "", {"tier": "tier"})


def written(folder, rows, view=VIEW):
    """The view over these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "crm.parquet")
    return replace(view, path=folder / "crm.parquet")


def row(user, days, tier, **more):
    return {"user_id": user, "when": MONDAY + timedelta(days=days), "tier": tier, **more}


def copied(view, out, until=MONDAY):
    copy(view, out, until)
    return pq.read_table(out / "own" / "crm.parquet").to_pylist()


def test_ids_become_text_nanoseconds_microseconds_and_what_is_of_after_the_moment_stays_away(tmp_path):
    frame = pd.DataFrame(
        {"user_id": [7, 7, 8], "when": pd.to_datetime(["2024-03-01", "2024-03-05", "2024-02-01"]), "tier": [1.0, 2.0, 3.0]}
    )
    frame["when"] = frame["when"].astype("datetime64[ns]")
    frame.to_parquet(tmp_path / "crm.parquet")
    rows = copied(replace(VIEW, path=tmp_path / "crm.parquet"), tmp_path / "run")
    assert [(one["user_id"], one["tier"]) for one in rows] == [("8", 3.0), ("7", 1.0)]
    assert pq.read_schema(tmp_path / "run" / "own" / "crm.parquet").field("event_timestamp").type == pa.timestamp("us", "UTC")


def test_a_row_written_late_is_not_known_before_and_a_correction_of_the_past_overtakes_nothing(tmp_path):
    rows = [
        row("ann", -10, 1.0, created=MONDAY + timedelta(days=-3)),  # of ten days ago, written three days ago: after the next one
        row("ann", -5, 2.0, created=MONDAY + timedelta(days=-5)),
        row("bob", -2, 3.0, created=MONDAY + timedelta(days=1)),
    ]
    view = replace(written(tmp_path, rows), created="created")
    found = copied(view, tmp_path / "run")
    assert [(one["user_id"], one["event_timestamp"], one["tier"]) for one in found] == [("ann", MONDAY - timedelta(days=5), 2.0)]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(-9, 5), st.integers(0, 6)), max_size=12, unique_by=lambda one: one[:2]),
    st.integers(-9, 9),
)
def test_the_newest_row_known_at_a_moment_is_the_one_a_person_would_pick(tmp_path_factory, given_rows, at):
    folder = tmp_path_factory.mktemp("rows")
    if not given_rows:
        return
    rows = [row(user, said, float(n), created=MONDAY + timedelta(days=said + late)) for n, (user, said, late) in enumerate(given_rows)]
    moment = MONDAY + timedelta(days=at)
    found = copied(replace(written(folder, rows), created="created"), folder / "run", MONDAY + timedelta(days=20))
    for user in "ab":
        known = [one for one in rows if one["user_id"] == user and max(one["when"], one["created"]) <= moment]
        expected = max(known, key=lambda one: one["when"])["tier"] if known else None
        seen = [one for one in found if one["user_id"] == user and one["event_timestamp"] <= moment]
        assert (max(seen, key=lambda one: one["event_timestamp"])["tier"] if seen else None) == expected


def test_a_renamed_column_and_a_folder_of_parts_are_read(tmp_path):
    for part, days in (("a", -1), ("b", -2)):
        written(tmp_path / "parts" / part, [row(f"u{days}", days, 4.0)])
    view = replace(VIEW, path=tmp_path / "parts", columns={"loyalty": "tier"})
    assert [(one["user_id"], one["loyalty"]) for one in copied(view, tmp_path / "run")] == [("u-2", 4.0), ("u-1", 4.0)]


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        ([row("ann", -1, 1.0), row("ann", -1, 2.0)], {}, "the view crm has two different rows of 'ann' at 2024-03-03"),
        ([row("ann", -1, float("inf"))], {}, "the feature tier of the view crm is infinite for 'ann'"),
        (
            [row("ann", -1, 1.0)],
            {"columns": {"tier": "class"}},
            r"reads a column 'class' that .* does not have: it has user_id, when, tier",
        ),
    ],
)
def test_what_has_no_one_meaning_is_refused_by_name(tmp_path, rows, change, message):
    with pytest.raises(BadView, match=message):
        copy(replace(written(tmp_path, rows), **change), tmp_path / "run", MONDAY)


def test_a_file_that_is_not_there_is_named_and_its_content_is_its_version(tmp_path):
    with pytest.raises(BadView, match=r"the view crm reads .*gone.parquet, which is not there"):
        version((replace(VIEW, path=tmp_path / "gone.parquet"),))
    first = version((written(tmp_path, [row("ann", -1, 1.0)]),))
    assert first == version((replace(VIEW, path=tmp_path / "crm.parquet"),))
    assert first != version((written(tmp_path, [row("ann", -1, 2.0)]),))
    assert version(()) == ""
