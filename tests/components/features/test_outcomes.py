"""What came of an item for each head, by hand."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.cut import OUTCOMES, read_outcomes
from components.data.read import arrow_schema
from components.features.outcomes import write_outcomes
from components.features.tables import open_tables
from feature_repo.schema import TABLES
from serving.event_meanings import Positive, Shown, Signal
from serving.objectives import Objective
from serving.system import load_system
from tests.components.features.test_states import CUT_DAY, START, write


def rows(*told):
    """(user, item, days after the cut, type, value)"""
    at = START + timedelta(days=60)
    return [
        {"event_id": str(n), "event_type": kind, "user_id": user, "item_id": item, "timestamp": at + timedelta(days=days), "value": value}
        for n, (user, item, days, kind, value) in enumerate(told)
    ]


EVENTS = rows(
    ("ann", "milk", -1, "watch", 900), ("ann", "milk", 1, "watch", 60), ("ann", "milk", 2, "watch", 240), 
    ("ann", "milk", 2, "click", None),
    ("ann", "bread", 2, "survey", 3), ("ann", "soap", 3, "survey", 5), ("bob", "soap", 6.9, "like", None),
    ("bob", "milk", 7.1, "like", None),
    ("bob", "bread", 1, "watch", None), ("bob", "bread", 1, "impression", None), ("ann", "soap", 1, "impression", None),
)  # fmt: skip
MEANINGS = {
    "watch": Positive(value="seconds", usual=300),
    "click": Signal(0.3),
    "like": Signal(1.0),
    "survey": Signal(0.1),
    "impression": Shown(),
}
HEADS = {
    "watch": Objective("watch", 0.5, loss="weighted", usual=300.0),
    "long": Objective("watch >= 100", 0.1),
    "satisfied": Objective("like or survey >= 4", 0.2),
    "chosen": Objective("positive", 0.1, loss="weighted"),
    'a "quoted" head': Objective("first click", 0.1),
}


def test_outcomes_are_those_of_the_days_after_the_cut(tmp_path):
    write(tmp_path, [])
    pq.write_table(pa.Table.from_pylist(EVENTS, schema=arrow_schema(TABLES["events"])), tmp_path / "events.parquet")
    system = replace(load_system("shop"), events=MEANINGS, objectives=HEADS)
    with open_tables(tmp_path, system, CUT_DAY, 7) as tables:
        count = write_outcomes(tables, system.objectives, CUT_DAY, 7, tmp_path / OUTCOMES)
    users, items, values = read_outcomes(tmp_path, tuple(HEADS))
    found = {(user, item): value.tolist() for user, item, value in zip(users, items, values, strict=True)}
    watched = sum(min(max(np.log1p(seconds) / np.log1p(300), 0.2), 3.0) for seconds in (60, 240))
    assert found == {
        ("ann", "milk"): pytest.approx([1.0, 1, 0, watched, 1], rel=1e-6),
        ("ann", "soap"): pytest.approx([0, 0, 1, 0, 0]),
        ("bob", "soap"): pytest.approx([0, 0, 1, 0, 0]),
        ("bob", "bread"): pytest.approx([1, 0, 0, 1, 0]),  # a watch that does not say how long counts as a usual one
    }
    assert count == len(found)
