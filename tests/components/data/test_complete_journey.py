"""The grocery's files become the four tables as they say, shown on a year of three baskets."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.complete_journey import ingest_from, title_of
from components.data.read import arrow_schema
from feature_repo.schema import TABLES


def sale(household, store, basket, product, quantity, paid, when):
    return {
        "household_id": household, "store_id": store, "basket_id": basket, "product_id": product,
        "quantity": quantity, "sales_value": paid, "transaction_timestamp": datetime.fromisoformat(when),  # naive, as in the package
    }  # fmt: skip


SALES = [
    sale(7, 300, 11, 1, 2, 5.0, "2017-03-01T09:30"),
    sale(7, 300, 11, 2, 0, 0.5, "2017-03-01T09:30"),  # a coupon: nothing bought
    sale(7, 400, 12, 1, 1, 2.0, "2017-03-08T09:00"),
    sale(7, 400, 12, 1, 4, 8.0, "2017-03-08T09:00"),  # the same product scanned twice
    sale(8, 400, 13, 99, 1, 1.0, "2017-02-01T00:00"),  # a product that is not in the catalogue
]
PRODUCTS = [
    {"product_id": 1, "manufacturer_id": 5, "department": "GROCERY", "brand": "National", "product_category": "PASTA SAUCE",
     "product_type": "MAINSTREAM", "package_size": "26 OZ"},
    {"product_id": 2, "manufacturer_id": 69, "department": "DELI", "brand": "Private", "product_category": "CHEESES",
     "product_type": "CHEESE: NATURAL BULK", "package_size": None},
    {"product_id": 3, "manufacturer_id": 2, "department": "MISCELLANEOUS", "brand": "National", "product_category": None,
     "product_type": None, "package_size": None},
]  # fmt: skip
DEMOGRAPHICS = [{"household_id": 7, "age": "35-44", "income": "50-74K", "household_size": "2", "household_comp": "2 Adults No Kids"}]
PROMOTIONS = [
    {"product_id": 1, "store_id": 300, "display_location": "0", "mailer_location": "A", "week": 2},
    {"product_id": 1, "store_id": 300, "display_location": "7", "mailer_location": "A", "week": 2},  # listed twice
    {"product_id": 2, "store_id": 300, "display_location": "0", "mailer_location": "0", "week": 2},  # nothing planned
    {"product_id": 2, "store_id": 400, "display_location": "A", "mailer_location": "0", "week": 49},
]


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    named = {"transactions": SALES, "products": PRODUCTS, "demographics": DEMOGRAPHICS, "promotions": PROMOTIONS}
    for name, rows in named.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def rows(out, name):
    return pq.read_table(out / f"{name}.parquet").to_pylist()


def test_receipts_become_purchases_with_unique_ids_and_unit_prices(package, tmp_path):
    ingest_from(package, tmp_path)
    events = {row["event_id"]: row for row in rows(tmp_path, "events")}
    assert list(events) == ["13-99", "11-1", "11-2", "12-1", "12-1-2"]  # by time
    assert [row["value"] for row in events.values()] == [1, 2, 0, 1, 4]
    assert [row["price"] for row in events.values()] == [1.0, 2.5, None, 2.0, 2.0]
    first = events["11-1"]
    assert (first["user_id"], first["item_id"], first["session_id"], first["context_store"]) == ("7", "1", "11", "300")
    assert (first["event_type"], first["device_type"]) == ("purchase", "store")
    assert first["timestamp"] == datetime(2017, 3, 1, 9, 30, tzinfo=UTC)


def test_products_become_items_dated_by_their_first_sale(package, tmp_path):
    ingest_from(package, tmp_path)
    sauce, cheese, nameless = rows(tmp_path, "items")
    assert (sauce["category"], sauce["brand"]) == ("GROCERY > PASTA SAUCE > MAINSTREAM", "5")
    assert json.loads(sauce["attributes"]) == {"label": "National", "size": "26 OZ"}
    assert [row["created_at"] for row in (sauce, cheese)] == [datetime(2017, 3, 1, 9, 30, tzinfo=UTC)] * 2
    assert nameless["created_at"] is None
    assert [row["title"] for row in (sauce, cheese, nameless)] == [
        "Mainstream (Pasta Sauce), 26 oz",
        "Cheese: Natural Bulk",
        "Miscellaneous",
    ]


def test_households_become_users_of_the_store_of_their_first_basket(package, tmp_path):
    ingest_from(package, tmp_path)
    seven, eight = rows(tmp_path, "users")
    assert (seven["user_id"], seven["region"], seven["age_band"], seven["household"]) == ("7", "300", "35-44", "2, 2 Adults No Kids")
    assert (eight["user_id"], eight["region"], eight["age_band"], eight["consent"]) == ("8", "400", None, "full")
    assert eight["created_at"] == datetime(2017, 2, 1, tzinfo=UTC)


def test_the_plan_holds_from_monday_to_monday_once_for_each_product_and_store(package, tmp_path):
    counted = ingest_from(package, tmp_path)
    plan = rows(tmp_path, "context")
    assert [(row["item_id"], row["place"], row["display"], row["mailer"]) for row in plan] == [
        ("1", "300", "7", "A"),
        ("2", "400", "A", None),
    ]
    assert [row["valid_from"] for row in plan] == [datetime(2017, 1, 2, tzinfo=UTC), datetime(2017, 11, 27, tzinfo=UTC)]
    assert [row["valid_until"] for row in plan] == [datetime(2017, 1, 9, tzinfo=UTC), datetime(2017, 12, 4, tzinfo=UTC)]
    assert counted["context"] == {"rows_in": 4, "left out: neither display nor mailer": 1, "merged: planned twice": 1}


def test_tables_have_the_schemas_types_and_the_same_bytes_each_time(package, tmp_path):
    for out in (tmp_path / "one", tmp_path / "two"):
        ingest_from(package, out)
    for name, table in TABLES.items():
        written, wanted = pq.read_schema(tmp_path / "one" / f"{name}.parquet"), arrow_schema(table)
        assert (written.names, written.types) == (wanted.names, wanted.types)
        assert (tmp_path / "one" / f"{name}.parquet").read_bytes() == (tmp_path / "two" / f"{name}.parquet").read_bytes()


@pytest.mark.parametrize(
    ("name", "category", "size", "title"),
    [
        ("CANDY W/O NUTS AND FRUIT", "CANDY", "1 LB", "Candy W/O Nuts and Fruit, 1 lb"),
        ("FRZN HERSHEY'S BARS", "FRZN NOVELTIES", None, "Frozen Hershey's Bars"),
        ("THE BARBIE", None, None, "The Barbie"),
        (None, "CANDY", "1 LB", ""),
    ],
)
def test_titles_are_readable(name, category, size, title):
    assert title_of(name, category, size) == title
