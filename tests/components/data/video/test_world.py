"""The made platform: the same bytes again, the shares it documents, and nothing of its truth in its tables."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.duck import connect
from components.data.ingest import open_table
from components.data.read import check_columns
from components.data.rows import sort_out
from components.data.validate import of_system
from components.data.video import words
from components.data.video_world import Oracle, Size, TrendingNow, Usual, World, moment, write
from feature_repo.schema import TABLES
from serving.event_meanings import Ignored, Positive
from serving.system import System

TINY = Size(users=400, channels=60, videos=900, days=8, ahead_days=2)
BROAD = Size(users=40_000, channels=2_000, videos=60_000, days=8)
OWN = {"watch": Positive(), **{name: Ignored() for name in ("share", "comment", "subscribe", "survey")}}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    """The tiny world's history, and the world when it ends."""
    folder = tmp_path_factory.mktemp("tables")
    return folder, write(folder, TINY)


@pytest.fixture(scope="module")
def broad() -> World:
    """Many users and videos of whom nothing happened yet."""
    return World(BROAD, seed=3)


def within(share: float, expected: float, count: int) -> bool:
    """Five standard errors of a share: one in two million by chance."""
    return abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / count)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tables: tuple[Path, World], tmp_path: Path) -> None:
    folder, _ = tables
    write(tmp_path / "again", TINY)
    write(tmp_path / "other", replace(TINY, days=2), seed=1)
    for name in ("events", "items", "users"):
        assert (tmp_path / "again" / f"{name}.parquet").read_bytes() == (folder / f"{name}.parquet").read_bytes()
        assert (tmp_path / "other" / f"{name}.parquet").read_bytes() != (folder / f"{name}.parquet").read_bytes()


def test_the_gate_takes_every_row(tables: tuple[Path, World], world_system: System, tmp_path: Path) -> None:
    """As the schema says, and keys are unique; only those who consent to minimal use are left out."""
    folder, _ = tables
    system = replace(world_system, events=OWN)
    connection = connect()
    reasons: dict[str, int] = {}
    for name in ("items", "users", "events"):
        table = of_system(TABLES[name], system)
        with open_table(table, folder) as file:
            check_columns(table, file.schema_arrow)
        verdict = sort_out(connection, table, folder / f"{name}.parquet", tmp_path / f"{name}.parquet", tmp_path / f"bad_{name}.parquet")
        reasons |= verdict.reasons
    assert set(reasons) == {"user_id: consents to minimal use"}


def test_the_crowd_has_the_documented_shares(broad: World) -> None:
    crowd, count = broad.crowd, BROAD.users
    for codes, shares in ((crowd.region, words.REGION_SHARES), (crowd.age, words.AGE_SHARES)):
        assert all(within(float((codes == code).mean()), share, count) for code, share in enumerate(shares))
    assert all(within(float((crowd.consent == name).mean()), share, count) for name, share in words.CONSENT_SHARES.items())
    assert within(float((crowd.joined_day > 0).mean()), 0.10, count)
    assert crowd.visits_a_day.mean() == pytest.approx(0.80, abs=0.02)
    foreign = crowd.language != 0
    assert crowd.speaks[np.arange(count), crowd.language].all()
    assert within(float(crowd.speaks[foreign, 0].mean()), 0.35, int(foreign.sum()))


def test_the_library_has_the_documented_shares(broad: World) -> None:
    library, count = broad.library, len(broad.library)
    assert (np.diff(library.created_day) >= 0).all()
    assert library.there(BROAD.days) == BROAD.videos
    for codes, shares in ((library.resolution, words.RESOLUTION_SHARES), (library.sound, words.SOUND_SHARES)):
        assert all(within(float((codes == code).mean()), share, count) for code, share in enumerate(shares))
    assert all(within(float((library.flag == name).mean()), share, count) for name, share in words.FLAG_SHARES.items())
    mislabelled = 0.08 * (1 - 1 / len(words.TOPICS))  # a wrong label drawn at random is right now and then
    assert within(float((library.label != library.topic).mean()), mislabelled, count)
    assert np.median(library.seconds) == pytest.approx(420, rel=0.15)
    assert library.seconds.min() >= 15
    assert library.seconds.max() <= 4 * 3600


def test_devices_networks_and_hours_are_by_habit(broad: World) -> None:
    """A visit's device is drawn from its user's shares, the network from the device's; most come within an evening."""
    evening = broad.fork()
    evening.day = 0.75  # 18 to 22 o'clock
    asked = evening.visits(4.0)
    expected = broad.crowd.device_shares[asked.user].mean(axis=0)
    assert all(within(float((asked.device == code).mean()), float(expected[code]), len(asked)) for code in range(3))
    for device, shares in enumerate(words.NETWORKS_OF_DEVICE):
        of = asked.network[asked.device == device]
        assert all(
            within(float((of == code).mean()), share, len(of)) or share == 0 == (of == code).sum() for code, share in enumerate(shares)
        )
    night = broad.fork()
    night.day = 0.25
    assert len(asked) > 2.5 * len(night.visits(4.0))
    assert np.array_equal(np.unique(asked.user), np.sort(asked.user))  # nobody twice


def test_history_holds_every_kind_of_event(tables: tuple[Path, World]) -> None:
    folder, world = tables
    events = pq.read_table(folder / "events.parquet").to_pandas()
    counts = events.event_type.value_counts()
    assert set(counts.index) == {"impression", "click", "watch", "like", "share", "comment", "subscribe", "survey", "video_view"}
    assert events.event_id.is_unique
    watches, homes = events[events.event_type == "watch"], events[events.context_page == "home"]
    assert (watches.value > 0).mean() > 0.99
    assert (watches.value <= world.library.seconds[watches.item_id.str[1:].astype(int)] + 0.1).all()
    assert set(events[events.event_type == "survey"].value) <= {1, 2, 3, 4, 5}
    assert 0.06 < counts["click"] / counts["impression"] < 0.14
    assert homes.context_position.between(0, 19).all()
    searched = events[events.event_type == "video_view"]
    assert (searched.context_page == "search").all()
    assert searched.context_query.notna().all()
    uploaded = events.item_id.map(pq.read_table(folder / "items.parquet").to_pandas().set_index("item_id").created_at)
    assert (uploaded <= events.timestamp).mean() > 0.999  # but what a user was subscribed to on the first day
    assert events.timestamp.min() >= moment(0)


def test_what_is_said_of_a_video_is_json_and_readable(tables: tuple[Path, World]) -> None:
    items = pq.read_table(tables[0] / "items.parquet").to_pandas()
    said = [json.loads(text) for text in items.attributes]
    assert all(set(one) == {"duration_seconds", "fps", "language", "resolution", "sound", "tags"} for one in said)
    assert items.category.str.count(" > ").eq(2).all()
    assert items.title.str.len().between(10, 120).all()


def test_a_forked_world_goes_its_own_way_and_meets_the_same_luck(tables: tuple[Path, World]) -> None:
    _, world = tables
    before = world.memory.copy()
    one, two, other = world.fork(), world.fork(), world.fork()
    first, second = one.step(TrendingNow(one)), two.step(TrendingNow(two))
    third = other.step(Oracle(other))
    assert np.array_equal(first.watch_seconds, second.watch_seconds)
    assert np.array_equal(first.user, third.user)
    assert third.watch_seconds.sum() > first.watch_seconds.sum()
    assert np.array_equal(world.memory.video, before.video)


def test_a_jump_changes_nothing_before_it_and_every_taste_after() -> None:
    calm, jumped = World(TINY), World(TINY, jump_day=1.0)
    for world in (calm, jumped):
        world.live_until(1.0, Usual(world), hours=8)
    assert np.array_equal(calm.memory.video, jumped.memory.video)
    visits = replace(calm.visits(), day=np.full(len(calm.visits()), 1.1))
    rows = np.tile(np.arange(200, dtype=np.int32), (len(visits), 1))
    known = calm.crowd.speaks[visits.user[:, None], calm.library.language[rows]]
    before, after = calm.behaviour.affinity(visits, rows)[known], jumped.behaviour.affinity(visits, rows)[known]
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.35
    assert before.std() == pytest.approx(after.std(), rel=0.2)


def test_tastes_turn_slowly(broad: World) -> None:
    """After a day they are all but the same, after a month they are not."""
    users, jump = np.arange(500, dtype=np.int32), np.inf
    today, tomorrow, later = (broad.crowd.taste(users, np.full(500, day), jump) for day in (0.0, 1.0, 30.0))
    assert np.corrcoef(today.ravel(), tomorrow.ravel())[0, 1] > 0.99
    assert 0.3 < np.corrcoef(today.ravel(), later.ravel())[0, 1] < 0.97


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 30))
def test_any_seed_and_shape_makes_a_world(seed: int, users: int, channels: int) -> None:
    world = World(Size(users=users, channels=channels, videos=60, days=1, ahead_days=1), seed)
    step = world.step(Usual(world))
    assert np.isfinite(step.watch_seconds).all()
    assert (step.clicks <= step.impressions + 1).all()


# What public columns may tell of affinity, at most: a share of its variance. Measured .06 alone, .03 beyond behaviour.
PUBLIC_ALONE, PUBLIC_BEYOND = 0.12, 0.06


def test_no_feature_reveals_the_truth() -> None:
    """Ages, regions, categories, titles, tags and channels tell little of who likes what; what was watched tells more."""
    world = World(Size(users=1_500, channels=80, videos=1_500, days=12), seed=5)
    world.live_until(12, Usual(world), hours=8)
    random = np.random.default_rng(0)
    visits = world.visits(24.0)[:900]
    rows = random.integers(0, world.there, (len(visits), 40)).astype(np.int32)
    spoken = world.crowd.speaks[visits.user[:, None], world.library.language[rows]]
    s, _ = np.nonzero(spoken)
    truth, row = world.behaviour.affinity(visits, rows)[spoken], rows[spoken]
    public, told = _public(world, visits.user[s], row), _behaviour(world, visits.user[s], row)
    half = s < len(visits) // 2  # other users to be judged on
    alone, behaviour, both = (_explained(columns, truth, half) for columns in (public, told, np.hstack([public, told])))
    assert alone < PUBLIC_ALONE
    assert behaviour > 0.12
    assert both - behaviour < PUBLIC_BEYOND


def _public(world: World, user: np.ndarray, row: np.ndarray) -> np.ndarray:
    """One column a value of everything that a table says, and of age and region within category."""
    library, crowd = world.library, world.crowd
    topics = len(words.TOPICS)
    codes = [
        library.label[row], library.kind[row], library.channel[row], library.resolution[row], library.sound[row],
        crowd.age[user] * topics + library.label[row], crowd.region[user] * topics + library.label[row],
    ]  # fmt: skip
    columns = [np.eye(int(code.max()) + 1, dtype=np.float32)[code] for code in codes]
    numbers = np.stack([np.log(library.seconds[row]), library.created_day[row] / 100, library.fps[row] / 30, row / len(library)], axis=1)
    return np.hstack([*columns, numbers])


def _behaviour(world: World, user: np.ndarray, row: np.ndarray) -> np.ndarray:
    """What each user watched: how much of the video's category, of its channel, and how much everybody did."""
    seen = world.memory.video[user]
    known = seen >= 0
    label = ((world.library.label[seen] == world.library.label[row][:, None]) & known).sum(axis=1)
    channel = ((world.library.channel[seen] == world.library.channel[row][:, None]) & known).sum(axis=1)
    share = label / np.maximum(known.sum(axis=1), 1)
    return np.stack([np.log1p(label), share, np.log1p(channel), np.log1p(world.counts.watched[row]), np.ones(len(row))], axis=1)


def _explained(columns: np.ndarray, truth: np.ndarray, half: np.ndarray) -> float:
    """R² of a ridge regression fitted on one half, on the other."""
    x, y = columns[half], truth[half] - truth[half].mean()
    weights = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ y)
    off = truth[~half] - truth[half].mean() - columns[~half] @ weights
    return float(1 - off.var() / truth[~half].var())
