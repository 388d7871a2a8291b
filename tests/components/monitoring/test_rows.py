"""What was known at a visit is what folding its user's events one by one makes, and it never holds the visit itself."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.monitoring.rows import KnownBefore, Visits, state_before
from feature_repo.schema import SECONDS_A_DAY
from serving.bundle.catalogue import item_key
from serving.state.user_state import StateTable
from tests.serving import tiny_bundle


@pytest.fixture(scope="module")
def visits(world, world_system):
    made = Visits(world_system, world.folder, None)
    yield made
    made.close()


def test_a_state_made_at_once_is_the_state_folded_event_by_event(tmp_path):
    system, table = tiny_bundle.system(), tiny_bundle.states()
    random = np.random.default_rng(0)
    days = np.sort(tiny_bundle.DAY + random.uniform(0, 30, 200))
    kinds = random.choice(["purchase", "click", "product_view"], 200).tolist()
    past = KnownBefore([f"i{row:03}" for row in random.integers(0, 20, 200)], kinds, days, [float("nan")] * 200)
    made = state_before(system, table, "u03", past)
    bare = table[table.index("u03")]
    from dataclasses import replace

    slow = replace(
        bare, keys=bare.keys[:0], first_day=bare.first_day[:0], last_day=bare.last_day[:0], counts=bare.counts[:0], decayed=bare.decayed[:0]
    )
    for item, kind, day in zip(past.items, past.kinds, days.tolist(), strict=True):
        slow = slow.with_positive(item_key(item), day) if kind == "purchase" else slow.with_session_event(item_key(item), kind, day)
    assert made.keys.tolist() == slow.keys.tolist()
    assert made.counts.tolist() == slow.counts.tolist()
    np.testing.assert_allclose(made.decayed, slow.decayed, rtol=1e-4)
    np.testing.assert_array_equal(made.last_day, slow.last_day)
    np.testing.assert_array_equal(made.first_day, slow.first_day)
    assert (made.session_keys.tolist(), made.session_types.tolist()) == (slow.session_keys.tolist(), slow.session_types.tolist())
    assert made.features.tolist() == bare.features.tolist()


def test_a_visit_is_one_day_of_one_user_and_its_past_ends_before_it(visits, world):
    since = world.until - timedelta(days=14)
    drawn = visits.draw(since, world.until)
    events = pq.read_table(world.folder / "events.parquet").to_pylist()
    assert len({user for user, *_ in drawn}) == len(drawn) > 40
    pasts = visits.pasts([(user, at) for user, at, *_ in drawn])
    for user, at, chosen, *_ in drawn[:10]:
        mine = [(event["timestamp"].timestamp() / SECONDS_A_DAY, event) for event in events if event["user_id"] == user]
        bought = [(day, event) for day, event in mine if event["event_type"] == "purchase"]
        today = [(day, event) for day, event in bought if int(day) == int(at)]
        assert at == pytest.approx(min(day for day, _ in today))
        assert set(chosen) == {event["item_id"] for _, event in today}
        assert len(pasts[user].items) == sum(day < at for day, _ in mine)
        assert (pasts[user].days < at).all()


def test_what_was_served_is_added_once(world, world_system, tmp_path):
    events = pq.read_table(world.folder / "events.parquet")
    late = events.slice(0, 1).to_pylist()[0] | {
        "event_id": "served",
        "event_type": "purchase",
        "timestamp": world.until + timedelta(days=40),
    }
    known = events.slice(5, 3).to_pylist()
    (tmp_path / "served").mkdir()
    pq.write_table(pa.Table.from_pylist([late, *known], schema=events.schema), tmp_path / "served" / "events.parquet")
    both = Visits(world_system, world.folder, tmp_path / "served")
    assert [(user, items) for user, _, items, *_ in both.draw(world.until + timedelta(days=39), world.until + timedelta(days=41))] == [
        (late["user_id"], [late["item_id"]])
    ]
    alone = Visits(world_system, world.folder, None)
    week = (world.until - timedelta(days=7), world.until)
    assert [row[:3] for row in both.draw(*week)] == [row[:3] for row in alone.draw(*week)]
    assert both.last() == alone.last()  # one client, forty days on, does not move the window
    both.close()
    alone.close()


def test_the_data_end_where_many_were_there_and_never_ahead_of_now(world, world_system, tmp_path):
    events = pq.read_table(world.folder / "events.parquet")
    one = events.slice(0, 1).to_pylist()[0] | {"event_type": "purchase"}
    later, ahead = world.until + timedelta(days=10, hours=9), datetime.now(UTC) + timedelta(days=400)
    rows = [one | {"event_id": f"{at} {user}", "user_id": f"u{user:03}", "timestamp": at} for at in (later, ahead) for user in range(40)]
    (tmp_path / "served").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=events.schema), tmp_path / "served" / "events.parquet")
    both = Visits(world_system, world.folder, tmp_path / "served")
    assert both.last() == later
    both.close()


def test_the_table_of_states_is_only_read_for_what_events_do_not_tell(tmp_path):
    table = tiny_bundle.states()
    table.save(tmp_path)
    nobody = state_before(tiny_bundle.system(), StateTable.load(tmp_path), "stranger", KnownBefore([], [], np.empty(0), []))
    assert nobody.is_unknown
    assert nobody.user_id == "stranger"
