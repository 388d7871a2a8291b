"""Data as people have them: what is nobody's mistake is counted and left out, what stops a run says how to go on."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.event_types import meaning_of, nearest
from components.data.validate import BadTable, validate
from feature_repo.schema import TABLES
from serving.event_meanings import Ignored, Positive, Signal
from serving.system import load_system
from tests.world.plain import END, plain, write

SHOP = load_system("shop")


@pytest.fixture
def rows():
    return plain()


def gate(rows, folder, system=SHOP, **more):
    """The report of the gate over `rows`."""
    validate(system, write(rows, folder / "data"), folder / "out", **more)
    return json.loads((folder / "out" / "report.json").read_text())


def test_what_is_delivered_twice_counts_once_and_is_not_bad(rows, tmp_path, capsys):
    count = len(rows["events"])
    again = [dict(event) for event in rows["events"][::5]]
    rows["events"] += again
    events = gate(rows, tmp_path)["tables"]["events"]
    assert events["accepted"] == count
    assert events["reasons"] == {"the same row again": len(again)}
    assert events["bad"] == 0
    assert "delivered twice" in capsys.readouterr().out


def test_an_id_used_again_for_something_else_is_bad(rows, tmp_path):
    rows["events"] += [{**rows["events"][0], "item_id": "i7", "price": 99.0}, {**rows["events"][0]}]
    events = gate(rows, tmp_path)["tables"]["events"]
    assert events["reasons"] == {"repeated key: event_id": 1, "the same row again": 1}
    assert events["bad"] == 1


def test_events_of_withdrawn_items_and_users_are_left_out_and_the_note_says_how_to_keep_them(rows, tmp_path, capsys):
    rows["items"] = [row for number, row in enumerate(rows["items"]) if number % 5]
    rows["users"] = rows["users"][3:]
    kept = {row["item_id"] for row in rows["items"]}, {row["user_id"] for row in rows["users"]}
    events = gate(rows, tmp_path)["tables"]["events"]
    assert events["accepted"] == sum(row["item_id"] in kept[0] and row["user_id"] in kept[1] for row in rows["events"])
    assert events["bad"] == 0
    assert "keep the items in the table with policy_flags 'blocked'" in capsys.readouterr().out


def test_ids_written_differently_in_two_tables_are_no_withdrawal(rows, tmp_path):
    for row in rows["items"]:
        row["item_id"] = f"0{row['item_id']}"
    with pytest.raises(BadTable, match="Are ids written alike in both tables"):
        gate(rows, tmp_path)


def test_of_a_user_who_consents_to_minimal_use_nothing_is_kept_but_the_wish(rows, tmp_path):
    for row in rows["users"][:4]:
        row.update(consent="minimal", age_band="30-39")
    rows["events"][0]["value"] = -1.0  # a bad row of anybody's would be shown in the quarantine
    theirs = {f"u{n}" for n in range(4)}
    count = sum(event["user_id"] in theirs for event in rows["events"])
    found = gate(rows, tmp_path)["tables"]
    assert found["events"]["reasons"]["user_id: consents to minimal use"] == count
    for name in TABLES:
        for place in (tmp_path / "out" / f"{name}.parquet", tmp_path / "out" / "quarantine" / f"{name}.parquet"):
            for row in pq.read_table(place).to_pylist():
                if row.get("user_id") in theirs:
                    assert (name, row["consent"], row["age_band"], row["region"]) == ("users", "minimal", None, None)
    aside = pq.read_table(tmp_path / "out" / "quarantine" / "events.parquet").to_pylist()
    assert sum(row["reason"] == "user_id: consents to minimal use" and row["event_id"] is None for row in aside) == count
    assert "e0" not in json.dumps(found["events"]["examples"])


def test_not_a_number_in_a_column_that_may_be_empty_means_missing(rows, tmp_path):
    for row in rows["items"]:
        row["price"] = float("nan")
    rows["events"][0]["value"] = float("nan")
    rows["events"][1]["value"] = float("inf")
    found = gate(rows, tmp_path)["tables"]
    assert found["items"]["set_aside"] == 0
    assert found["events"]["reasons"] == {"value: not a finite number": 1}
    assert pq.read_table(tmp_path / "out" / "items.parquet")["price"].null_count == len(rows["items"])
    assert pq.read_table(tmp_path / "out" / "events.parquet")["value"].null_count == 1


def test_a_catalogue_of_ids_alone_is_enough(rows, tmp_path):
    rows["items"] = [{"item_id": row["item_id"]} for row in rows["items"]]
    rows["events"] = [{name: row[name] for name in ("event_id", "event_type", "user_id", "item_id", "timestamp")} for row in rows["events"]]
    assert all(not table["set_aside"] for table in gate(rows, tmp_path)["tables"].values())


def test_rows_ahead_of_now_are_set_aside(rows, tmp_path, capsys):
    rows["events"].append({**rows["events"][-1], "event_id": "late clock", "timestamp": datetime.now(UTC) + timedelta(days=4000)})
    rows["events"].append({**rows["events"][-1], "event_id": "fast clock", "timestamp": datetime.now(UTC) + timedelta(hours=2)})
    events = gate(rows, tmp_path)["tables"]["events"]
    assert events["reasons"] == {"timestamp: ahead of now": 2}
    assert "the cut does not follow them" in capsys.readouterr().out


def test_now_may_be_given(rows, tmp_path):
    with pytest.raises(BadTable, match="with timestamp: ahead of now"):
        gate(rows, tmp_path, now=(END - timedelta(days=20)).isoformat())


def test_types_of_ones_own_are_named_with_counts_and_how_to_give_them_a_meaning(tmp_path):
    rows = plain(types=("purchase", "view_item", "remove_from_cart"))
    count = len(rows["events"]) // 3
    with pytest.raises(BadTable) as caught:
        gate(rows, tmp_path)
    message = str(caught.value)
    assert f"view_item {count:,} (unknown; nearest: product_view)" in message
    assert f"remove_from_cart {count:,} (unknown; nearest: add_to_cart)" in message
    assert f"purchase {count:,}" in message
    assert "shop knows impression, product_view," in message
    assert '"view_item": Signal(0.3)' in message
    assert '"remove_from_cart": Ignored()' in message
    assert "shortlist new NAME --data DIR" in message


def test_types_that_the_system_names_pass(tmp_path):
    from dataclasses import replace

    system = replace(SHOP, events={"purchase": Positive(), "view_item": Signal(0.2), "it's gone": Ignored()})
    rows = plain(types=("purchase", "view_item", "it's gone"))
    assert gate(rows, tmp_path, system)["tables"]["events"]["set_aside"] == 0


def test_a_refused_comparison_says_with_what_from_when_and_how_to_accept(rows, tmp_path):
    gate(rows, tmp_path / "first")
    fewer = {**rows, "events": rows["events"][: len(rows["events"]) // 3]}
    before = {"last_accepted": tmp_path / "first" / "out", "compared_with": "those of /exports accepted on 2025-03-01 09:00 UTC"}
    with pytest.raises(BadTable) as caught:
        gate(fewer, tmp_path / "second", **before)
    message = str(caught.value)
    assert "those of /exports accepted on 2025-03-01 09:00 UTC" in message
    assert "--accept" in message
    assert "newest second is 2025-0" in message  # in readable times
    assert "UTC, expected at least 2025-03-02" in message


@pytest.mark.parametrize(
    ("name", "known", "meaning"),
    [
        ("view_item", "product_view", "Signal(0.3)"),
        ("ViewItem", "product_view", "Signal(0.3)"),
        ("Purchase", "purchase", "Positive()"),
        ("order-completed", "purchase", "Positive()"),
        ("remove_from_cart", "add_to_cart", "Ignored()"),
        ("add-to-wishlist", "add_to_cart", "Signal(1.0)"),
        ("play", "watch", "Signal(0.6)"),
    ],
)
def test_the_nearest_known_type_shares_most_words(name, known, meaning):
    assert (nearest(name), meaning_of(name)) == (known, meaning)


def test_the_quarantine_has_every_row_that_was_left_out(rows, tmp_path):
    rows["events"] += [dict(rows["events"][0])]
    rows["items"] = rows["items"][1:]
    found = gate(rows, tmp_path)["tables"]["events"]
    aside = pq.read_table(tmp_path / "out" / "quarantine" / "events.parquet")
    assert found["rows_in"] == found["accepted"] + len(aside)
    assert pa.compute.is_in(aside["reason"], pa.array(list(found["reasons"]))).to_pylist() == [True] * len(aside)
