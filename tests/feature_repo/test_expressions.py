"""The features are what their names say: a small world worked out by hand, Spark against DuckDB, and nothing from after the cut."""

import math
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.read import arrow_schema
from feature_repo.schema import TABLES, Worth
from tests.world.picks import ITEM_FEATURES, USER_FEATURES

# one thread, and no code generation: nine rows are not worth compiling for
SMALL_SPARK = {
    "spark_master": "local[1]", "spark_sql_shuffle_partitions": "1", "spark_sql_codegen_wholeStage": "false",
    "spark_sql_codegen_factoryMode": "NO_CODEGEN", "spark_sql_adaptive_enabled": "false",
}  # fmt: skip

CUT = datetime(2024, 3, 4, tzinfo=UTC)


def days_before(days):
    return CUT - timedelta(days=days)


def event(number, user, item, when, session, store="s1", value=1.0, price=2.0, kind="purchase"):
    return {
        "event_id": f"e{number}", "event_type": kind, "user_id": user, "item_id": item, "timestamp": when, "session_id": session,
        "value": value, "price": price, "context_store": store,
    }  # fmt: skip


def plan(item, place, begin, display=None, mailer=None):
    until = begin + timedelta(days=7)
    return {"item_id": item, "place": place, "valid_from": begin, "valid_until": until, "display": display, "mailer": mailer}


EVENTS = [
    event(1, "ann", "milk", days_before(40), "a1"),
    event(2, "ann", "milk", days_before(20), "a2", value=3.0, price=4.0),
    event(3, "ann", "bread", days_before(20), "a2", price=1.0),
    event(4, "ann", "milk", days_before(3), "a3"),
    event(5, "bob", "milk", days_before(5), "b1", store="s2"),
    event(6, "bob", "soap", days_before(5), "b1", store="s2", price=5.0),
    event(7, "bob", "soap", days_before(-1), "b2", store="s2"),  # after the cut
    event(8, "bob", "bread", CUT, "b2", store="s2"),  # at the cut: after it
    event(9, "ann", "soap", days_before(2), "a4", kind="click"),  # not a positive
]
ITEMS = [
    {"item_id": "milk", "category": "food > dairy > milk", "brand": "farm"},
    {"item_id": "bread", "category": "food > bakery", "brand": "mill"},
    {"item_id": "soap", "category": "home > wash > soap", "brand": "farm"},
    {"item_id": "lamp", "category": None, "brand": None},
]
USERS = [{"user_id": name, "consent": "full"} for name in ("ann", "bob", "eve")]
CONTEXT = [
    plan("milk", "s1", days_before(7), display="1"),  # holds when ann buys milk 3 days before the cut
    plan("milk", "s2", days_before(14), mailer="A"),  # ended before bob buys milk
    plan("lamp", "s1", CUT, display="1"),
    plan("milk", "s1", CUT, mailer="A"),
    plan("milk", "s2", CUT, mailer="A"),
]


def write(folder, events=EVENTS):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("events", events), ("items", ITEMS), ("users", USERS), ("context", CONTEXT)):
        pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(TABLES[name])), folder / f"{name}.parquet")
    return folder


def stats(tables):
    """User and item rows by id, from Ibis tables by name."""
    from feature_repo.expressions import history
    from feature_repo.expressions import stats as made
    from feature_repo.shop import features as shop

    past = history(tables["events"], tables["items"], tables["context"], {"purchase": Worth()})
    users, items = (
        made(view.features, view.key, past, tables["events"], tables["items"], tables["context"], CUT).to_pyarrow().to_pylist()
        for view in (shop.user_stats, shop.item_stats)
    )
    return {row["user_id"]: row for row in users}, {row["item_id"]: row for row in items}


def duckdb_stats(folder):
    import ibis

    backend = ibis.duckdb.connect()
    try:
        return stats({name: backend.read_parquet(str(folder / f"{name}.parquet"), table_name=name) for name in TABLES})
    finally:
        backend.disconnect()


@pytest.fixture(scope="module")
def by_duckdb(tmp_path_factory):
    return duckdb_stats(write(tmp_path_factory.mktemp("hand")))


def test_a_users_features_are_those_worked_out_by_hand(by_duckdb):
    users, _ = by_duckdb
    assert set(users) == {"ann", "bob"}  # eve bought nothing
    log1p = math.log1p
    gap = 37 / 2  # three visits from 40 to 3 days before the cut
    expected = {
        "user_baskets_7": log1p(1), "user_baskets_28": log1p(2), "user_baskets_all": log1p(3), "user_events_28": log1p(3),
        "user_days_since_last": 3, "user_gap_days": gap, "user_due": log1p(3 / gap), "user_basket_size": 4 / 3,
        "user_items": log1p(2), "user_categories": log1p(2),  # bread has no third level, its second stands for it
        "user_brands": log1p(2), "user_stores": log1p(1),
        "user_repeat_share_28": 2 / 3,  # milk twice again, bread for the first time
        "user_spend_28": log1p(12 + 1 + 2), "user_price": (2 + 4 + 1 + 2) / 4, "user_promoted_share": 1 / 4, "user_tenure_days": 40,
    }  # fmt: skip
    assert {name: users["ann"][name] for name in USER_FEATURES} == pytest.approx(expected)


def test_an_items_features_are_those_worked_out_by_hand(by_duckdb):
    _, items = by_duckdb
    log1p = math.log1p
    expected = {
        "item_buyers_7": log1p(2), "item_buyers_14": log1p(2), "item_buyers_28": log1p(2), "item_buyers_all": log1p(2),
        "item_events_7": log1p(2), "item_events_14": log1p(2), "item_events_28": log1p(3), "item_events_all": log1p(4),
        "item_trend": log1p(8) - log1p(2), "item_rebuy_rate": 1 / 2, "item_rebuy_gap_days": 37 / 2,
        "item_days_since_last": 3, "item_days_since_first": 40,
        "item_price": log1p(2), "item_relative_price": 0.0,  # alone in its type
        "item_department_28": log1p(4), "item_category_28": log1p(3), "item_type_28": log1p(3), "item_brand_28": log1p(4),
        "item_type_share_28": 1.0, "item_stores": log1p(2), "item_promoted_share": 1 / 4,
        "item_planned_display": 0.0, "item_planned_mailer": 1.0,
    }  # fmt: skip
    assert {name: items["milk"][name] for name in ITEM_FEATURES} == pytest.approx(expected)


def test_an_item_never_sold_has_its_plan_and_counts_of_zero_and_nothing_invented(by_duckdb):
    _, items = by_duckdb
    lamp = items["lamp"]
    assert lamp["item_planned_display"] == pytest.approx(1 / 2)  # one of the two places with a plan
    assert lamp["item_buyers_all"] == lamp["item_type_28"] == 0.0
    assert lamp["item_price"] is None
    assert lamp["item_days_since_last"] is None


def test_events_at_or_after_the_cut_change_no_feature(by_duckdb, tmp_path):
    past_only = [row for row in EVENTS if row["timestamp"] < CUT]
    assert duckdb_stats(write(tmp_path, past_only)) == by_duckdb


def test_spark_makes_the_same_table(by_duckdb, tmp_path):
    from components.features.snapshots import spark_tables

    with spark_tables(write(tmp_path), **SMALL_SPARK) as tables:
        by_spark = stats(tables)
    for mine, theirs in zip(by_spark, by_duckdb, strict=True):
        assert set(mine) == set(theirs)
        for key, row in theirs.items():
            assert {name: value for name, value in mine[key].items() if value is not None} == pytest.approx(
                {name: value for name, value in row.items() if value is not None}
            ), key


@pytest.mark.parametrize(
    "of", [Worth(), Worth(2.0), Worth(1.0, usual=4.0, at_least=4.0), Worth(0.5, usual=100.0), Worth(1.0, at_least=1.0)]
)
def test_what_an_event_counts_is_the_same_for_a_table_and_for_one_event(of):
    import ibis

    from feature_repo.expressions import worth

    values = [None, 0.0, 0.5, 1.0, 3.0, 4.0, 5.0, 100.0, 1e9]
    table = ibis.memtable(pa.table({"kind": ["a"] * len(values) + ["b"], "value": pa.array([*values, 5.0], pa.float64())}))
    found = table.mutate(weight=worth(table.kind, table.value, {"a": of})).to_pyarrow()["weight"].to_pylist()
    assert found == pytest.approx([*(of.of(float("nan") if value is None else value) for value in values), 0.0])
