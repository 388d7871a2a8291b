"""What was known at a cut: nothing from after it, the same by Feast online and offline, the same bytes each time."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.features import item_table
from components.features.build import build
from components.features.moments import cut_day, cut_name, judged_days, parse_moment, rolling_cuts
from components.features.online import last_states, materialize, online_features
from components.features.store import LostRows, features_at, open_store
from serving.bundle.catalogue import Catalogue
from serving.state.feast_row import Layout, SqliteRows
from serving.state.user_state import StateTable
from serving.system import Learning
from tests.world.picks import ITEM_FEATURES, USER_FEATURES


@pytest.fixture(scope="module")
def built(world, world_system, tmp_path_factory):
    """The world at its last cut and one week before."""
    out = tmp_path_factory.mktemp("built")
    build(world_system, world.folder, out, world.until, 1)
    return out


@pytest.fixture(scope="module")
def last(world):
    return cut_name(world.until)


def test_a_planted_future_signal_changes_no_byte_of_what_is_known_at_the_last_cut(world, world_system, built, last, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world.folder, data)
    events = pq.read_table(data / "events.parquet")
    template = events.slice(0, 1).to_pylist()[0]
    known = pq.read_table(data / "users.parquet").to_pylist()
    users = [row["user_id"] for row in known if row["consent"] == "full"]  # of the others nothing would be learnt, planted or not
    planted = [  # every user buys one and the same never-sold item right after the cut, dear and in a place of its own
        {**template, "event_id": f"leak{n}", "user_id": user, "item_id": world.never_sold[0], "session_id": f"leak{n}",
         "timestamp": world.until + timedelta(seconds=n), "price": 999.0, "value": 50.0, "context_store": "nowhere else"}
        for n, user in enumerate(users)
    ]  # fmt: skip
    pq.write_table(pa.concat_tables([events, pa.Table.from_pylist(planted, schema=events.schema)]), data / "events.parquet")

    build(world_system, data, tmp_path / "out", world.until, 1)
    seen = [path.relative_to(built) for path in built.rglob("*") if path.is_file()]
    differing = {str(path) for path in seen if (built / path).read_bytes() != (tmp_path / "out" / path).read_bytes()}
    # the week that is there to be judged on shows that the plant was really there, and so do the counts of rows
    assert differing == {f"cuts/{last}/labels.parquet", f"cuts/{last}/outcomes.parquet", "features.json"}
    counted = [json.loads((folder / "features.json").read_text())["cuts"] for folder in (built, tmp_path / "out")]
    assert counted[1][-1].pop("labels") - counted[0][-1].pop("labels") == len(users)
    assert counted[0] == counted[1]


def test_an_item_that_enters_after_the_cut_has_neither_day_nor_list_price_yet(world, world_system, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world.folder, data)
    items = pq.read_table(data / "items.parquet").to_pylist()
    for row in items[:2]:
        row.update(price=7.0, created_at=world.until + timedelta(seconds=-1 if row is items[0] else 0))
    pq.write_table(pa.Table.from_pylist(items, schema=pq.read_schema(data / "items.parquet")), data / "items.parquet")
    build(world_system, data, tmp_path / "out", world.until, 0)
    table = Catalogue.load(tmp_path / "out" / "cuts" / cut_name(world.until) / "item_table")
    before, at = (table.row_of(row["item_id"]) for row in items[:2])
    assert table.price[before] == 7.0
    assert table.created_day[before] == pytest.approx(table.cut_day, abs=1e-3)
    assert table.price[at] != 7.0
    assert np.isnan(table.created_day[at])


def test_the_same_tables_leave_the_same_bytes(world, world_system, built, tmp_path):
    build(world_system, world.folder, tmp_path, world.until, 1)
    files = sorted(path.relative_to(built) for path in built.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for file in files:
        assert (built / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_our_offline_store_answers_as_feasts_own_does(world_system, world, built, monkeypatch):
    import pandas as pd
    from feast import FeatureStore

    users = pq.read_table(world.folder / "users.parquet")["user_id"].to_pylist()
    moments = [world.until + timedelta(days=days) for days in (-8, -7, -1, 0, 3, 8, 9)]  # before all, on, between, stale
    asked = pd.DataFrame([{"user_id": user, "event_timestamp": moment} for user in [*users[:9], "nobody"] for moment in moments])
    asked["event_timestamp"] = asked["event_timestamp"].astype("datetime64[us, UTC]")
    asked["row"] = range(len(asked))
    ours = open_store(world_system, built)
    theirs_config = ours.config.model_copy(deep=True)
    monkeypatch.chdir(built)  # Feast's own reads source paths from the working folder
    theirs = FeatureStore(repo_path=str(built), config=_with_stock_store(theirs_config))
    frames = []
    for store in (ours, theirs):
        answer = store.get_historical_features(entity_df=asked, features=store.get_feature_service("users")).to_df()
        frames.append(answer.sort_values("row")[["row", "user_id", *USER_FEATURES]].reset_index(drop=True))
    pd.testing.assert_frame_equal(*frames)
    known = frames[0]["user_tenure_days"].notna().to_numpy().reshape(10, len(moments))
    assert known[0].tolist() == [False, True, True, True, True, True, False]  # nothing yet; fresh for eight days; then stale
    assert not known[9].any()


def _with_stock_store(config):
    from feast import RepoConfig

    return RepoConfig(
        project=config.project,
        provider="local",
        registry=config.registry.model_dump(),
        offline_store={"type": "duckdb"},
        online_store={"type": "sqlite", "path": "feast/unused.db"},
        entity_key_serialization_version=3,
    )


def test_the_frames_in_a_cut_are_the_snapshots_row_for_row(built, world, last):
    items = Catalogue.load(built / "cuts" / last / "item_table")
    states = StateTable.load(built / "cuts" / last / "users")
    for table, ids, key, view, names in (
        (items.features, items.item_ids, "item_id", "item_stats", ITEM_FEATURES),
        (states.features, states.user_ids, "user_id", "user_stats", USER_FEATURES),
    ):
        rows = {row[key]: row for row in pq.read_table(built / f"{view}.parquet").to_pylist() if row["event_timestamp"] == world.until}
        for index, entity in enumerate(ids.tolist()):
            expected = [rows.get(entity.decode(), {}).get(name) for name in names]
            np.testing.assert_array_equal(table[index], np.array([np.nan if value is None else value for value in expected], np.float32))


def test_the_online_row_is_feasts_and_the_cuts_and_a_later_one_takes_its_place(world_system, built, world, last, tmp_path):
    online = f"sqlite:{tmp_path / 'online.db'}"
    done = materialize(world_system, world.folder, tmp_path / "run", world.until.isoformat(), online)
    assert (done["written"], done["views"]) == (True, ["user_stats"])
    layout = Layout.of(json.loads((built / "features.json").read_text())["online"])
    rows, states = SqliteRows(tmp_path / "online.db", layout), last_states(built, last)
    for index in (0, 7, len(states) - 1):
        user = states[index].user_id
        by_feast = online_features(world_system, tmp_path / "run", online, user)
        row = np.array([np.nan if by_feast[name] is None else by_feast[name] for name in USER_FEATURES], np.float32)
        np.testing.assert_array_equal(rows.read(user).values, row)
        np.testing.assert_array_equal(row, states[index].features)  # so what was learnt is what is read
    assert set(online_features(world_system, tmp_path / "run", online, "nobody").values()) == {None}
    rows.close()

    user = states[0].user_id
    earlier = materialize(world_system, world.folder, tmp_path / "earlier", (world.until - timedelta(days=7)).isoformat(), online)
    assert not earlier["written"]
    later = materialize(world_system, world.folder, tmp_path / "later", (world.until + timedelta(hours=60)).isoformat(), online)
    assert later["written"]
    rows = SqliteRows(tmp_path / "online.db", layout)
    fresh = rows.read(user)
    assert fresh.day == pytest.approx(states.cut_day + 2.5, abs=1e-4)
    assert not np.array_equal(fresh.values, states[0].features)
    rows.close()


def test_labels_are_the_positives_of_the_days_after_the_cut(built, world):
    events = [row for row in pq.read_table(world.folder / "events.parquet").to_pylist() if row["event_type"] == "purchase"]
    for begin in (world.until - timedelta(days=7), world.until):
        expected: dict[tuple[str, str], int] = {}
        for row in events:
            if begin <= row["timestamp"] < begin + timedelta(days=7):
                pair = (row["user_id"], row["item_id"])
                expected[pair] = expected.get(pair, 0) + 1
        labels = pq.read_table(built / "cuts" / cut_name(begin) / "labels.parquet").to_pylist()
        assert {(row["user_id"], row["item_id"]): row["count"] for row in labels} == expected


def test_the_plan_in_the_item_table_is_the_context_of_its_weeks(built, world, last):
    items = Catalogue.load(built / "cuts" / last / "item_table")
    begin = items.plan_at(items.cut_day)
    assert begin == 0
    planned = {
        (row["item_id"], row["place"]): row
        for row in pq.read_table(world.folder / "context.parquet").to_pylist()
        if row["valid_from"] <= world.until < row["valid_until"]
    }
    assert planned
    found = {}
    for place, row in np.argwhere((items.plan_display[begin] > 0) | (items.plan_mailer[begin] > 0)):
        codes = (
            items.display_codes[items.plan_display[begin, place, row]] or None,
            items.mailer_codes[items.plan_mailer[begin, place, row]] or None,
        )
        found[items.item_id(int(row)), items.places[place]] = codes
    assert found == {pair: (row["display"], row["mailer"]) for pair, row in planned.items()}


def test_a_plan_that_no_bundle_can_hold_is_refused_in_a_sentence(world, world_system, tmp_path, monkeypatch):
    monkeypatch.setattr(item_table, "MOST_PLAN_BYTES", 700)  # 3 places x 120 items x two plans are 720, for each period
    told = r"plans \d periods in 3 places for 120 items: [\d,]+ bytes, at most 700: plan by region"
    with pytest.raises(ValueError, match=told):
        build(world_system, world.folder, tmp_path / "out", world.until, 1)


def test_a_world_without_any_plan_stores_or_visits_has_features_and_an_empty_plan(world, world_system, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world.folder, data)
    plan, events = pq.read_table(data / "context.parquet"), pq.read_table(data / "events.parquet")
    pq.write_table(plan.slice(0, 0), data / "context.parquet")
    for name in ("session_id", "context_store", "price"):
        column = events.schema.field(name)
        events = events.set_column(events.schema.get_field_index(name), column, pa.nulls(len(events), column.type))
    pq.write_table(events, data / "events.parquet")
    build(world_system, data, tmp_path / "out", world.until, 0)
    items = Catalogue.load(tmp_path / "out" / "cuts" / cut_name(world.until) / "item_table")
    assert items.plan_display.shape == items.plan_mailer.shape == (0, 0, 120)
    assert items.plan_at(items.cut_day) == -1
    assert not items.features[:, items.feature_names.index("item_planned_mailer")].any()
    states = last_states(tmp_path / "out", cut_name(world.until))
    assert set(states.place.tolist()) == {b""}
    visits = np.expm1(states.features[:, states.feature_names.index("user_baskets_all")])
    positives = np.diff(np.concatenate([[0], np.cumsum(states.counts)[states.ends - 1]]))  # an event without a visit is one of its own
    known = np.diff(np.concatenate([[0], states.ends])) > 0
    np.testing.assert_allclose(visits[known], positives[known], rtol=1e-4)


def test_a_cut_before_all_events_is_refused(world, world_system, tmp_path):
    with pytest.raises(ValueError, match="no purchase event lies before 2020-01-01"):
        build(world_system, world.folder, tmp_path, "2020-01-01", 1)


def test_a_store_that_loses_rows_is_noticed(built, world, world_system):
    class Losing:
        def __init__(self, store):
            self.store, self.get_feature_service = store, store.get_feature_service

        def get_historical_features(self, entity_df, features):
            return self.store.get_historical_features(entity_df=entity_df.head(1), features=features)

    store = open_store(world_system, built)
    with pytest.raises(LostRows, match="asked the service items for 2 rows, got 1"):
        features_at(Losing(store), "items", ["i000", "i001"], world.until, ITEM_FEATURES)


def test_cuts_leave_every_label_before_the_last_cut():
    until = parse_moment("2024-03-18")
    assert [cut_name(cut) for cut in rolling_cuts(until, 2, Learning())] == ["2024-03-04", "2024-03-11", "2024-03-18"]
    assert rolling_cuts(until, 2, Learning(horizon_days=10))[1] == until - timedelta(days=10)
    assert rolling_cuts(until, 2, Learning(horizon_days=1))[1] == until - timedelta(days=7)  # weekly plans keep their weekday


def test_cuts_lie_as_close_as_a_system_says_never_within_the_labels_of_the_next():
    until, daily = parse_moment("2024-03-18"), Learning(horizon_days=1, every_days=1)
    assert [cut_name(cut) for cut in rolling_cuts(until, 3, daily)] == ["2024-03-15", "2024-03-16", "2024-03-17", "2024-03-18"]
    assert rolling_cuts(until, 1, Learning(horizon_days=3, every_days=1))[0] == until - timedelta(days=3)


def test_a_moment_without_an_offset_is_refused_unless_it_is_a_day():
    assert parse_moment("2024-03-18") == parse_moment("2024-03-18T00:00:00+00:00") == parse_moment("2024-03-18T01:00:00+01:00")
    assert cut_name(parse_moment("2024-03-18T10:30:00Z")) == "2024-03-18T103000"
    with pytest.raises(ValueError, match="has no offset"):
        parse_moment("2024-03-18T10:30:00")


@pytest.mark.parametrize(
    ("cut", "last", "days"),
    [
        ("2024-03-18", "2024-03-20T23:00:00Z", 3),  # the last day is counted whole
        ("2024-03-18", "2024-03-24T00:30:00Z", 7),
        ("2024-03-18", "2024-05-01T00:00:00Z", 7),  # no more than a target has
        ("2024-03-18T18:00:00Z", "2024-03-18T19:00:00Z", 1),
        ("2024-03-18", "2024-03-17T23:00:00Z", 0),  # nothing lies after it
    ],
)
def test_the_days_judged_are_those_that_the_rows_reach(cut, last, days):
    assert judged_days(parse_moment(cut), 7, cut_day(parse_moment(last))) == days


def test_nothing_is_written_into_the_repo(world_system):
    repo = Path(__file__).parents[3] / world_system.feature_repo
    assert sorted(path.name for path in repo.iterdir() if path.name != "__pycache__") == ["feature_store.yaml", "features.py"]


def test_where_the_rows_reach_on_a_second_week_is_made_to_judge_by_and_changes_nothing_before_it(world, world_system, tmp_path):
    earlier = world.until - timedelta(days=7)
    build(world_system, world.folder, tmp_path / "two", earlier, 1)
    week = tmp_path / "two" / "judged" / cut_name(world.until)
    assert StateTable.load(week / "users").cut_day == pytest.approx(world.until.timestamp() / 86400)
    report = json.loads((tmp_path / "two" / "features.json").read_text())
    told = report["judged"]
    assert report["judged_days"] == 7
    assert [cut["cut"] for cut in told] == [cut_name(world.until)]
    assert told[0]["labels"] == pq.read_metadata(week / "labels.parquet").num_rows > 0

    data = tmp_path / "data"  # the same rows without the second week: the cuts are the same to the byte
    shutil.copytree(world.folder, data)
    events = pq.read_table(data / "events.parquet")
    pq.write_table(events.filter(pc.less(events["timestamp"], world.until)), data / "events.parquet")
    build(world_system, data, tmp_path / "one", earlier, 1)
    assert not (tmp_path / "one" / "judged").exists()
    for file in sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one" / "cuts").rglob("*") if path.is_file()):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
