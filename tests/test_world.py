"""The tests' own world is as it says: simulated alike every time, with its truth visible in the tables."""

import hashlib
from collections import Counter
from datetime import timedelta

import pyarrow.parquet as pq

from feature_repo.schema import TABLES
from tests.world.generate import write_world


def rows(world, name):
    return pq.read_table(world.folder / f"{name}.parquet").to_pylist()


def purchases(world):
    return [row for row in rows(world, "events") if row["event_type"] == "purchase"]


def test_the_same_seed_writes_the_same_bytes(world, tmp_path):
    again = write_world(tmp_path / "again")
    for name in TABLES:
        first, second = ((folder / f"{name}.parquet").read_bytes() for folder in (world.folder, again.folder))
        assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest(), name


def test_tables_have_the_columns_of_the_schema_and_no_dangling_reference(world):
    for name, table in TABLES.items():
        assert tuple(pq.read_schema(world.folder / f"{name}.parquet").names) == table.names
        for column, other in table.references.items():
            known = {row[TABLES[other].key[0]] for row in rows(world, other)}
            assert {row[column] for row in rows(world, name)} <= known
        keys = [tuple(row[part] for part in table.key) for row in rows(world, name)]
        assert len(set(keys)) == len(keys)


def test_every_user_eats_the_staples_most(world):
    eaten = Counter((row["user_id"], row["item_id"]) for row in purchases(world))
    for user, staples in world.staples.items():
        assert min(eaten[user, item] for item in staples) >= 5, user


def test_nearly_everything_eaten_is_of_the_users_group(world):
    inside = [world.user_group[row["user_id"]] == world.item_group[row["item_id"]] for row in purchases(world)]
    assert sum(inside) / len(inside) > 0.95


def test_never_sold_items_are_never_sold_and_new_ones_only_after_they_entered(world):
    entered = {row["item_id"]: row["created_at"] for row in rows(world, "items")}
    sold = {row["item_id"] for row in purchases(world)}
    assert not sold & set(world.never_sold)
    assert len(sold & set(world.new_items)) > len(world.new_items) / 2
    assert all(row["timestamp"] >= entered[row["item_id"]] for row in purchases(world))


def test_strangers_have_no_one_and_two_baskets(world):
    baskets = {user: {row["session_id"] for row in purchases(world) if row["user_id"] == user} for user in world.strangers}
    assert [len(baskets[user]) for user in world.strangers] == [0, 1, 2]
    assert all(row["timestamp"] < world.until for row in purchases(world) if row["user_id"] in world.strangers)


def test_promotions_lift_sales(world):
    plan = {(row["item_id"], row["place"], row["valid_from"]) for row in rows(world, "context")}
    monday = [
        (row["timestamp"] - timedelta(days=row["timestamp"].weekday())).replace(hour=0, minute=0, second=0) for row in purchases(world)
    ]
    planned = [
        (row["item_id"], row["context_store"], begin) in plan
        for row, begin in zip(purchases(world), monday, strict=True)
        if row["item_id"] not in world.staples.get(row["user_id"], ())
    ]
    assert sum(planned) / len(planned) > 0.15  # 8 % of item-weeks are planned
