"""What was shown in the days after a cut is kept with its best position, and nothing of before or after."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.cut import SHOWN, read_shown
from components.data.read import arrow_schema
from components.features.outcomes import write_shown
from components.features.tables import open_tables
from components.ranking.fitted import SLOTS, slot_of
from feature_repo.schema import TABLES
from serving.event_meanings import Ignored, Positive, Shown
from serving.system import load_system
from tests.components.features.test_states import CUT_DAY, START, write


def rows(*told):
    """(user, item, days after the cut, type, position)"""
    at = START + timedelta(days=60)
    return [
        {"event_id": str(n), "event_type": kind, "user_id": user, "item_id": item, "timestamp": at + timedelta(days=days),
         "context_position": place}
        for n, (user, item, days, kind, place) in enumerate(told)
    ]  # fmt: skip


EVENTS = rows(
    ("ann", "milk", -1, "impression", 0), ("ann", "milk", 1, "impression", 7), ("ann", "milk", 2, "impression", 3),
    ("ann", "bread", 2, "list", None), ("bob", "soap", 6.9, "list", 40), ("bob", "soap", 7.1, "list", 0), ("bob", "milk", 1, "purchase", 1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ({}, {("ann", "milk"): 3}),
        ({"purchase": Positive(), "list": Shown()}, {("ann", "milk"): 3, ("ann", "bread"): None, ("bob", "soap"): 40}),
        ({"purchase": Positive(), "impression": Ignored()}, {}),
    ],
)
def test_shown_items_are_those_of_the_label_days(tmp_path, events, expected):
    write(tmp_path, [])
    pq.write_table(pa.Table.from_pylist(EVENTS, schema=arrow_schema(TABLES["events"])), tmp_path / "events.parquet")
    with open_tables(tmp_path, replace(load_system("shop"), events=events), CUT_DAY, 7) as tables:
        assert write_shown(tables, CUT_DAY, 7, tmp_path / SHOWN) == len(expected)
    users, items, positions = read_shown(tmp_path)
    told = zip(users, items, positions.tolist(), strict=True)
    assert {(user, item): None if np.isnan(at) else at for user, item, at in told} == expected


def test_a_slot_is_one_of_the_first_ten_or_further_down():
    assert [slot_of(position) for position in (0, 9, 10, 500, float("nan"))] == [1, 10, SLOTS - 1, SLOTS - 1, SLOTS - 1]
