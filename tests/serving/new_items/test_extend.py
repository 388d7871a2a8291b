"""Items posted since the release: known at once, retrievable through the content tower, recalled at once."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from msgspec.structs import replace as replaced

from serving.bundle.bundle import Bundle
from serving.bundle.catalogue import item_key
from serving.messages import ItemPatch, NewItem
from serving.new_items.extend import NewItems, PostedTables, grown
from serving.new_items.safety import Safety, Said
from serving.new_items.store import ItemStore, RedisItems, SqliteItems, named
from serving.query import Request
from serving.ranking.rankers import ItemSide
from serving.recommender import Recommender
from serving.retrieval.two_tower import TowerTable, TwoTower
from serving.rules.arrange import Rules
from serving.rules.slate import Ranked
from serving.rules.specs import at_most
from serving.state.store import StoreUnavailable
from tests.serving import tiny_bundle
from tests.serving.servers import in_process, tiny_options
from tests.serving.tiny_bundle import DAY, ITEMS, WIDTH

NEW = NewItem("new-1", category="D > C3", brand="brand 2", title="OAT BAR 40", price=2.5)
TABLE = tiny_bundle.states()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(Bundle.load(tiny_bundle.write_tiny(tmp_path_factory.mktemp("posted"))), tiny_bundle.system())


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ItemStore]:
    if request.param == "sqlite":
        return lambda: SqliteItems(tmp_path / "items.sqlite")
    import redis

    url = request.getfixturevalue("redis_url")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return lambda: RedisItems(url)


def test_a_posted_item_has_a_row_of_its_own_after_those_of_the_bundle(base: Recommender) -> None:
    catalogue = grown(base, [NEW]).catalogue
    row = catalogue.row_of("new-1")
    assert row == ITEMS
    assert (catalogue.item_id(row), catalogue.title(row), float(catalogue.price[row])) == ("new-1", "OAT BAR 40", 2.5)
    assert catalogue.category_names[catalogue.category[row, 1]] == "D > C3"
    assert catalogue.brand_names[catalogue.brand[row]] == "brand 2"
    assert np.isnan(catalogue.features[row]).all()
    assert [catalogue.row_of(f"i{number:03}") for number in (0, 100, 239)] == [0, 100, 239]
    assert len(base.catalogue) == ITEMS  # the bundle's own is untouched


def test_items_of_a_brand_nobody_knew_are_told_apart_and_counted_together(base: Recommender) -> None:
    """They were of no brand, and no cap of a brand held for them."""
    tables = PostedTables(base)
    first = [NewItem(f"a-{n}", category="D > C3", brand="of today") for n in range(3)]
    more = [*first, NewItem("b-0", brand="of today, too"), NewItem("c-0", brand="brand 2"), NewItem("d-0")]
    grown(base, first, tables)
    larger = grown(base, more, tables)  # a second post, onto the tables of the first
    brands = [int(larger.catalogue.brand[larger.catalogue.row_of(item.item_id)]) for item in more]
    assert [larger.catalogue.brand_names[code] for code in brands] == ["of today"] * 3 + ["of today, too", "brand 2", "unknown"]
    assert larger.catalogue.brand_names[:-2] == base.catalogue.brand_names
    rules = Rules((at_most(2, per="brand"),), larger.catalogue, 10)
    ranked = Ranked(np.arange(ITEMS, ITEMS + 3, dtype=np.int32), np.ones(3, np.float32), np.zeros(3, bool))
    assert [move.what for move in rules.arrange(ranked, Request("", 3, DAY)).moves] == ["gave way"]
    state = TABLE[0].with_positive(item_key("a-1"), DAY - 1)
    assert len(larger.recommend(Request(state.user_id, 10, DAY), state).items) == 10


def test_lists_of_who_has_nothing_to_do_with_a_posted_item_stay_as_they_were(base: Recommender) -> None:
    larger = grown(base, [NEW])
    for index in range(len(TABLE)):
        state = TABLE[index]
        before, after = (one.recommend(Request(state.user_id, 10, DAY), state) for one in (base, larger))
        assert [item.item_id for item in before.items] == [item.item_id for item in after.items]


def test_a_user_who_has_a_posted_item_is_answered(base: Recommender) -> None:

    state = TABLE[1].with_positive(item_key("new-1"), DAY).with_session_event(item_key("new-1"), "click", DAY)
    answer = grown(base, [NEW]).recommend(Request("u01", 10, DAY + 1), state)
    assert len(answer.items) == 10


def test_an_item_the_bundle_has_is_recalled_at_once(base: Recommender) -> None:
    state = TABLE[1]
    first = base.recommend(Request("u01", 5, DAY), state).items[0].item_id
    recalled = grown(base, [NewItem(first, policy_flags=["recalled"])])
    assert first not in {item.item_id for item in recalled.recommend(Request("u01", 50, DAY), state).items}


def test_the_nearest_posted_item_comes_first_from_the_tower() -> None:
    # Two items on the axes; the posted one lies where the user's vector points, the prior of its kind is the median of its category.
    table = TowerTable(
        vectors=np.array([[127, 0], [0, 127]], np.int8),
        scales=np.full(2, 1 / 127, np.float32),
        prior=np.array([-1.0, -3.0], np.float32),
        history=np.zeros((2, 2), np.float16),
        temperature=0.1,
    )

    class Leaves:
        category = np.array([[1, 2, 3], [1, 2, 4], [1, 2, 3]])

    spec = tiny_bundle.system().sources[0]
    none = np.empty((1, 0), np.float32)
    sides = ItemSide(np.array([[0.6, 0.8]], np.float32), np.ones((1, 2), np.float32), none, none)
    source = TwoTower(spec, table).with_new_items(Leaves, sides)  # type: ignore[arg-type]
    assert source.table.prior.tolist() == [-1.0, -3.0, -1.0]

    class Asked:
        excluded = np.empty(0, np.int32)

    hits = source.retrieve(Asked(), 3, np.array([0.6, 0.8], np.float32))  # type: ignore[arg-type]
    # 0.6 / 0.1 - 1 = 5;  0.8 / 0.1 - 3 = 5;  (0.36 + 0.64) / 0.1 - 1 = 9
    assert hits.rows[0] == 2
    assert np.allclose(hits.scores, [9, 5, 5], atol=0.05)


def test_what_one_worker_posts_another_takes_up_and_a_restart_keeps(base: Recommender, store: Callable[[], ItemStore]) -> None:
    used: dict[str, Recommender] = {}
    first, second = (
        NewItems(base, store(), lambda made, name=name: used.update({name: made}), lambda: DAY) for name in ("first", "second")
    )  # type: ignore[misc]
    assert first.post([NEW, NewItem("new-2")])[0] == 2
    assert second.refresh()
    assert not second.refresh()
    assert [used[name].catalogue.row_of("new-2") for name in ("first", "second")] == [ITEMS + 1] * 2
    assert used["second"].catalogue.created_day[ITEMS] == DAY  # new since it was posted
    new, _ = second.post([NewItem("new-1", title="RENAMED"), NewItem("new-3")])
    assert new == 1
    assert first.refresh()
    assert used["first"].catalogue.title(ITEMS) == "RENAMED"
    again = NewItems(base, store(), lambda made: used.update(again=made), lambda: DAY)
    assert again.refresh()
    assert used["again"].catalogue.row_of("new-3") == ITEMS + 2


def test_a_version_that_was_looked_at_long_after_its_write_is_still_followed_by_the_next(tmp_path: Path) -> None:
    store = SqliteItems(tmp_path / "items.sqlite")
    store.post([named(NEW)], DAY)
    os.utime(tmp_path / "items.sqlite", (0, 0))
    assert [store.version(), store.version()] == [1, 1]
    SqliteItems(tmp_path / "items.sqlite").post([named(NEW)], DAY)
    assert store.version() == 2


def test_a_database_lost_and_put_back_is_looked_at_again(tmp_path: Path) -> None:
    looking, path = SqliteItems(tmp_path / "items.sqlite"), tmp_path / "items.sqlite"
    SqliteItems(path).post([named(NEW)], DAY)
    assert looking.version() == 1
    path.rename(tmp_path / "kept")
    assert looking.version() == 0
    (tmp_path / "kept").replace(path)
    assert looking.version() == 1


def test_an_item_store_that_is_gone_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for gone in (SqliteItems(tmp_path / "file" / "items"), RedisItems("redis://127.0.0.1:1/0")):
        with pytest.raises(StoreUnavailable):
            gone.version()
        with pytest.raises(StoreUnavailable):
            gone.post([named(NEW)], DAY)


async def test_items_posted_to_the_door_are_counted_and_a_recall_holds_in_the_next_answer(tmp_path: Path) -> None:
    parts = in_process(tiny_options(tmp_path))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door") as client:
        first = (await client.post("/v1/recommendations", json={"user_id": "u01"})).json()["items"][0]["item_id"]
        body = {"items": [{"item_id": "new-1", "title": "OAT BAR"}, {"item_id": first, "policy_flags": ["recalled"]}]}
        reply = await client.post("/v1/items", json=body)
        assert (reply.status_code, reply.json()["accepted"]) == (200, 2)
        after = (await client.post("/v1/recommendations", json={"user_id": "u01"})).json()
        assert first not in {item["item_id"] for item in after["items"]}
        assert (await client.post("/v1/items", json={"items": [{"item_id": "x", "colour": "red"}]})).json()["error"][
            "field"
        ] == "items[0].colour"
    for close in parts.closers:
        close()


def test_halves_of_posted_items_are_read_after_the_bundles(base: Recommender) -> None:
    side = ItemSide(
        np.empty((1, 0), np.float32), np.empty((1, 0), np.float32), np.full((1, WIDTH), 7, np.float32), np.full((1, WIDTH), 8, np.float32)
    )
    rankers = base.rankers.with_items(side)
    assert rankers.item_halves("light", np.array([0, ITEMS], np.int32))[1].tolist() == [7.0] * WIDTH
    assert replace(rankers).item_halves("heavy", np.array([ITEMS], np.int32)).tolist() == [[8.0] * WIDTH]


def test_a_message_leaves_what_it_does_not_name_as_it_was(base: Recommender, store: Callable[[], ItemStore]) -> None:
    kept = store()
    kept.post([named(ItemPatch("new-1", category="D > C3", title="OAT BAR", price=2.5, policy_flags=["adult"]))], DAY)
    assert kept.post([named(ItemPatch("new-1", price=3.0))], DAY + 1)[0] == 0
    (found,) = kept.all()
    assert (found.item.title, found.item.price, found.item.category, found.item.policy_flags) == ("OAT BAR", 3.0, "D > C3", ["adult"])
    assert found.day == DAY + 1
    assert found.item.created_at is not None
    assert found.item.created_at.timestamp() == DAY * 86_400  # since the first
    kept.post([named(ItemPatch("new-1", price=None, policy_flags=[]))], DAY + 2)
    (found,) = kept.all()
    assert (found.item.price, found.item.policy_flags) == (None, [])


def test_an_item_that_cannot_be_read_is_left_out_until_it_is_posted_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteItems(tmp_path / "items")
    store.post([{"item_id": f"new-{number}", "title": f"NEW {number}"} for number in range(4)], DAY)
    with closing(sqlite3.connect(tmp_path / "items")) as db, db:
        for number, body in enumerate((b"\xff{", b"[1]", b'{"item": {"item_id": 7}, "day": "x"}')):
            db.execute("UPDATE items SET body = ? WHERE item_id = ?", (body, f"new-{number}"))
    assert [kept.item.item_id for kept in store.all()] == ["new-3"]
    assert len(caplog.messages) == 3
    store.post([{"item_id": "new-0", "title": "AGAIN"}], DAY)
    assert [(kept.item.item_id, kept.item.title) for kept in store.all()] == [("new-0", "AGAIN"), ("new-3", "NEW 3")]


def test_tables_with_room_hold_what_a_growth_from_nothing_holds(base: Recommender) -> None:
    tables, items = (
        PostedTables(base),
        [NewItem(f"new-{number}" + "x" * number, "D > C3", title="T" * number, price=float(number)) for number in range(40)],
    )
    for count in (1, 2, 17, 40, 40):
        made = grown(base, items[:count], tables)
        fresh = grown(base, items[:count])
        for name in (
            "item_ids",
            "keys",
            "key_order",
            "category",
            "created_day",
            "price",
            "flags",
            "title_bytes",
            "title_ends",
            "features",
            "plan_display",
        ):
            assert np.array_equal(
                getattr(made.catalogue, name), getattr(fresh.catalogue, name), equal_nan=name in ("created_day", "price", "features")
            ), name
    changed = [replaced(items[0], title="ANOTHER"), *items[1:]]
    assert grown(base, changed, tables).catalogue.title(ITEMS) == "ANOTHER"


def test_the_towers_table_is_not_copied_for_an_item_more() -> None:
    rng = np.random.default_rng(3)
    table = TowerTable(
        rng.integers(-127, 128, (5_000, 8)).astype(np.int8), np.full(5_000, 1 / 127, np.float32), np.zeros(5_000, np.float32),
        np.zeros((5_000, 8), np.float16), 0.1,
    )  # fmt: skip
    source = TwoTower(tiny_bundle.system().sources[0], table)
    vectors, tables, none = rng.normal(size=(40, 8)).astype(np.float32), PostedTables(None), np.empty((40, 0), np.float32)  # type: ignore[arg-type]
    grown: list[TwoTower] = []
    for first, count in ((0, 7), (7, 8), (8, 40)):
        leaves = SimpleNamespace(category=np.zeros((5_000 + count, 3), np.int32))
        sides = ItemSide(
            vectors[:count], vectors[:count], none, none, lambda name, base, rows, at=first: tables.put(name, base, at, rows(at))
        )
        grown.append(source.with_new_items(leaves, sides))  # type: ignore[arg-type]
        whole = source.with_new_items(leaves, ItemSide(vectors[:count], vectors[:count], none, none))  # type: ignore[arg-type]
        for name in ("vectors", "scales", "prior", "history"):
            assert np.array_equal(getattr(grown[-1].table, name), getattr(whole.table, name)), name
            assert np.shares_memory(getattr(grown[0].table, name), getattr(grown[-1].table, name)), name


def test_what_was_posted_before_a_release_that_holds_it_is_retired(base: Recommender, store: Callable[[], ItemStore]) -> None:
    kept = store()
    kept.post([named(ItemPatch("i005", policy_flags=["out_of_stock"]))], DAY - 40)
    kept.post([named(ItemPatch("i006", policy_flags=["out_of_stock"]))], DAY - 1)
    kept.post([named(ItemPatch("i007", policy_flags=["out_of_stock"])), named(NEW)], DAY + 1)
    used: list[Recommender] = []
    NewItems(base, kept, used.append, lambda: DAY).refresh()
    assert [int(used[-1].rules.flags[row]) for row in (5, 6, 7)] == [0, 0, 2]
    assert {one.item.item_id for one in kept.all()} == {"i006", "i007", "new-1"}  # a roll-back may still want the second


def test_ten_thousand_posted_items_leave_room_for_words_about_known_ones_and_a_recall(base: Recommender, tmp_path: Path) -> None:
    used: list[Recommender] = []
    items = NewItems(base, SqliteItems(tmp_path / "items"), used.append, lambda: DAY, Safety(tmp_path))
    for part in range(10):
        items.post([ItemPatch(f"stock-{1000 * part + number}", policy_flags=["out_of_stock"]) for number in range(1000)])
    with pytest.raises(StoreUnavailable, match="make a release"):
        items.post([ItemPatch("one more")])
    items.post([ItemPatch("i000", policy_flags=["recalled"])])
    items.say([Said("i001", "block", True, DAY)])
    rows = [item.item_id for item in used[-1].recommend(Request("u01", 240, DAY), TABLE[1]).items]
    assert {"i000", "i001"} & set(rows) == set()
    items.post([ItemPatch("i000", policy_flags=[])])  # does not name the recall, so it holds
    assert "i000" not in [item.item_id for item in used[-1].recommend(Request("u01", 240, DAY), TABLE[1]).items]
    items.say([Said("i000", "recall", False, DAY + 1)])
    assert "i000" in [item.item_id for item in used[-1].recommend(Request("u01", 240, DAY), TABLE[1]).items]


def test_memory_stays_flat_over_a_thousand_posts(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.bundle.bundle import Bundle; from serving.messages import ItemPatch\n"
        "from serving.new_items.extend import NewItems; from serving.new_items.store import SqliteItems\n"
        "from serving.recommender import Recommender\n"
        "from serving.worker.memory import keep_freed_memory; from tests.serving import tiny_bundle\n"
        "keep_freed_memory(); folder = Path(sys.argv[1])\n"
        "base = Recommender(Bundle.load(tiny_bundle.write_tiny(folder)), tiny_bundle.system())\n"
        "items = NewItems(base, SqliteItems(folder / 'items'), lambda _: None, lambda: tiny_bundle.DAY)\n"
        "rss = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4\n"
        "for number in range(1000):\n"
        "    items.post([ItemPatch(f'new-{number}', category='D > C3', title='OAT BAR', price=2.5)])\n"
        "    if number in (199, 999): print(rss())\n"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout.split()
    early, late = (int(one) for one in told)
    assert late - early < 16_000  # KB: 800 posts more, of which each left 75,000 before
