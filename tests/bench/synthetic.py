"""A bundle of any size with the shapes of the shop's, made from a seed: for measuring speed, never quality.

Popularity falls as 1/rank; vectors lie in clusters; a history is drawn half from popularity, half from the user's favourite clusters, so
that a user's vector lies among items as a learnt one does; the networks have the real sizes and random weights.
Shapes: I items, U users, P places, K neighbours, D dimensions.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.retrieval.two_tower import write_cells
from feature_repo.names import TAUS_DAYS
from serving.bundle.bundle import feature_schema, settings_of, write_bundle
from serving.bundle.catalogue import Catalogue, item_key
from serving.bundle.fallback import Fallback
from serving.query import Query, Request
from serving.ranking.features import request_features
from serving.ranking.rankers import Rankers
from serving.retrieval.buy_again import Habits
from serving.retrieval.category_promotion import GROUPINGS, Offers, grouping_codes
from serving.retrieval.linear import Neighbours
from serving.retrieval.top_k import EXACT_LIMIT
from serving.retrieval.trending import Lists
from serving.retrieval.two_tower import TowerTable
from serving.state.user_state import StateTable
from serving.system import System
from tests.bench.networks import ITEM_FEATURES, USER_FEATURES, write_models

CUT_DAY = 17_497.0  # 2017-11-27
SHOP_ITEMS = 92_331
DEPARTMENTS, CATEGORIES, TYPES, BRANDS, PLACES = 32, 303, 2_378, 6_471, 112
DIMENSIONS, CLUSTERS = 64, 400
FAVOURITES, HISTORY_LENGTH = 3, 8.0  # clusters a user likes; length of the rows of the history bag
TRIALS = 64  # users whose vectors cells are tried with
HISTORY_ITEMS = 350  # the mean household's


@dataclass(frozen=True)
class Sizes:
    """How large the made world is."""

    items: int = SHOP_ITEMS
    users: int = 2_000
    with_neighbours: int = 24_000
    neighbours: int = 200
    on_offer: int = 40_000


def write_synthetic(system: System, out: Path, sizes: Sizes | None = None, seed: int = 0) -> tuple[Path, Path]:
    """Write a bundle below `out`; the bundle's folder and the StateTable folder of its users."""
    sizes = sizes or Sizes()
    random = np.random.default_rng(seed)
    parts = out / "parts"
    catalogue = _catalogue(random, sizes)
    catalogue.save(parts / "item_table")
    _sources(random, sizes, catalogue, parts / "sources")
    lists = np.tile(np.arange(1000, dtype=np.int32), (2, 1))
    Fallback(("1", "2"), lists, lists[0], np.empty(0, "S1"), np.empty((0, 1000), np.int32)).save(parts / "fallback")
    write_models(system, catalogue, DIMENSIONS, parts, out / "whole")
    states = _states(random, sizes, catalogue)
    states.save(out / "users")
    if sizes.items > EXACT_LIMIT:
        write_cells(parts / "sources" / "two_tower", _user_vectors(system, catalogue, states, parts), seed)
    names = ("item_table", "fallback", "halves", "layers", "request", "request.onnx", "item.onnx", "light.onnx", "heavy.onnx")
    manifest = {
        "system": system.name,
        "settings": settings_of(system),
        "schema": feature_schema(USER_FEATURES, ITEM_FEATURES, system.kinds),
        "span": {"cut_day": CUT_DAY, "items": sizes.items, "users": sizes.users},
        "code_version": "synthetic",
        "metrics": {},
        "parents": [],
    }
    kinds = {f"sources/{source.kind}": parts / "sources" / source.kind for source in system.sources}
    return write_bundle({name: parts / name for name in names} | kinds, manifest, out / "bundles"), out / "users"


def _user_vectors(system: System, catalogue: Catalogue, states: StateTable, parts: Path) -> NDArray[np.float32]:
    """(U, D) vectors of some users as a server would ask with them: what the cells are tried with."""
    table, rankers = TowerTable.load(parts / "sources" / "two_tower"), Rankers.load(parts)
    vectors = []
    for at in range(min(TRIALS, len(states))):
        query = Query(Request(states[at].user_id, system.answer_size, CUT_DAY), states[at], catalogue, system.learning)
        bag = np.asarray(table.history[query.history_rows], np.float32).mean(axis=0)
        vectors.append(rankers.user_side(request_features(query), bag).vector)
    return np.array(vectors)


def _catalogue(random: np.random.Generator, sizes: Sizes) -> Catalogue:
    count = sizes.items
    numbers = np.arange(count)
    ids = np.array([f"{number:07}" for number in numbers], "S7")
    keys = np.array([item_key(item.decode()) for item in ids.tolist()], np.uint64)
    kind = random.integers(TYPES, size=count)  # narrowest level; its category and department follow from it
    category, department = kind % CATEGORIES, kind % DEPARTMENTS
    levels = np.stack((1 + department, 1 + DEPARTMENTS + category, 1 + DEPARTMENTS + CATEGORIES + kind), axis=1)
    title = np.frombuffer(b"Made-up product, 12 OZ", np.uint8)
    planned = np.stack([random.random((PLACES, count), np.float32) < 0.05 for _ in range(2)]).astype(np.uint8)
    return Catalogue(
        item_ids=ids,
        keys=keys,
        key_order=np.argsort(keys).astype(np.int32),
        category=levels.astype(np.int32),
        brand=random.integers(1, BRANDS, size=count, dtype=np.int32),
        created_day=CUT_DAY - random.integers(1, 330, size=count).astype(np.float64),
        price=random.lognormal(1, 0.7, count).astype(np.float32),
        flags=np.where(random.random(count) < 0.002, 1, 0).astype(np.uint8),
        title_bytes=np.tile(title, count),
        title_ends=len(title) * np.arange(1, count + 1),
        features=random.normal(size=(count, len(ITEM_FEATURES))).astype(np.float32),
        plan_display=planned,
        plan_mailer=planned[::-1],
        plan_from=np.array([CUT_DAY, CUT_DAY + 7]),
        plan_until=np.array([CUT_DAY + 7, CUT_DAY + 14]),
        feature_names=ITEM_FEATURES,
        category_names=(
            "unknown",
            *(f"D{n}" for n in range(DEPARTMENTS)),
            *(f"D{n % DEPARTMENTS} > C{n}" for n in range(CATEGORIES)),
            *(f"D{n % DEPARTMENTS} > C{n % CATEGORIES} > T{n}" for n in range(TYPES)),
        ),
        brand_names=("unknown", *(str(n) for n in range(1, BRANDS))),
        places=tuple(str(n) for n in range(1, PLACES + 1)),
        display_codes=("", "1"),
        mailer_codes=("", "A"),
        cut_day=CUT_DAY,
    )


def _popular(random: np.random.Generator, sizes: Sizes, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Item rows drawn log-uniformly: row r about as often as 1 / (r + 1)."""
    return np.minimum(np.exp(random.random(shape) * np.log(sizes.items)).astype(np.int64) - 1, sizes.items - 1).clip(0)


def _clusters(items: int) -> NDArray[np.int64]:
    """(I,) the cluster of each item, popular ones in all of them."""
    return np.random.default_rng(items).integers(CLUSTERS, size=items)


def _sources(random: np.random.Generator, sizes: Sizes, catalogue: Catalogue, folder: Path) -> None:
    count = sizes.items
    popularity = (1000.0 / np.arange(1, count + 1)).astype(np.float32)
    Habits(random.random(count, np.float32), 90.0).save(folder / "buy_again")
    known = np.arange(min(sizes.with_neighbours, count), dtype=np.int32)
    position = np.full(count, -1, np.int32)
    position[known] = known
    Neighbours(
        rows=known,
        position_of=position,
        neighbours=np.minimum(_popular(random, sizes, (len(known), sizes.neighbours)), len(known) - 1).astype(np.uint16),
        weights=random.integers(-3_000, 30_000, size=(len(known), sizes.neighbours), dtype=np.int16),
        scales=np.full(len(known), 1e-6, np.float32),
        tau_days=150.0,
    ).save(folder / "linear")
    centres = random.normal(size=(CLUSTERS, DIMENSIONS)).astype(np.float32)
    vectors = centres[_clusters(count)] + 0.6 * random.normal(size=(count, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scales = np.abs(vectors).max(axis=1) / 127
    TowerTable(
        vectors=np.rint(vectors / scales[:, None]).astype(np.int8),
        scales=scales,
        prior=np.log1p(popularity),
        history=(HISTORY_LENGTH * vectors).astype(np.float16),
        temperature=0.1,
    ).save(folder / "two_tower")
    offers = np.sort(random.choice(count, min(sizes.on_offer, count), replace=False)).astype(np.int32)
    shares = [np.bincount(grouping_codes(catalogue, name)).astype(np.float32) + 1 for name in GROUPINGS]
    Offers(
        rows=offers,
        popularity=popularity[offers],
        local_ends=np.arange(1, PLACES + 1) * 100,
        local_at=random.integers(len(offers), size=PLACES * 100, dtype=np.int32),
        local_factor=1 + random.random(PLACES * 100, np.float32),
        local_default=np.full(PLACES, 0.5, np.float32),
        share_ends=np.cumsum([len(share) for share in shares]),
        shares=np.concatenate([share / share.sum() for share in shares]).astype(np.float32),
        powers=(0.3, 0.3, 0.3),
        display_lift=0.3,
        mailer_lift=1.0,
        chain_lift=0.5,
        tau_days=60.0,
        prior_counts=10.0,
        items=count,
    ).save(folder / "category_promotion")
    order = np.arange(1000, dtype=np.int32)
    groups = ("everyone", *(f"place:{n}" for n in range(1, PLACES + 1)))
    Lists(groups, np.tile(order, (len(groups), 1)), np.tile(popularity[order], (len(groups), 1)), popularity).save(folder / "trending")


def _states(random: np.random.Generator, sizes: Sizes, catalogue: Catalogue) -> StateTable:
    lengths = np.clip(random.gamma(1.4, HISTORY_ITEMS / 1.4, sizes.users).astype(int), 1, 2_000)
    keys, ends = [], []
    total = 0
    by_cluster = np.argsort(_clusters(sizes.items), kind="stable")  # the most popular first within each
    begins = np.searchsorted(np.sort(_clusters(sizes.items)), np.arange(CLUSTERS + 1))
    for length in lengths.tolist():
        liked = random.choice(CLUSTERS, FAVOURITES)
        near = [by_cluster[begins[one] : begins[one + 1]][: max(length // (2 * FAVOURITES), 1)] for one in liked.tolist()]
        rows = np.unique(np.concatenate((_popular(random, sizes, (length,)), *near)))
        rows = random.permutation(rows)[:length]
        keys.append(np.sort(catalogue.keys[rows]))
        total += len(rows)
        ends.append(total)
    counts = 1 + random.poisson(0.7, total).astype(np.float32)
    last = CUT_DAY - random.exponential(60, total)
    ids = np.array([f"u{n:05}" for n in range(sizes.users)], "S6")
    return StateTable(
        user_ids=ids,
        ends=np.array(ends),
        keys=np.concatenate(keys),
        first_day=last - 60 * random.random(total),
        last_day=last,
        counts=counts,
        decayed=(1 + (counts[:, None] - 1) * np.array([0.2, 0.4, 0.6, 0.8])).astype(np.float32),
        features=random.normal(size=(sizes.users, len(USER_FEATURES))).astype(np.float32),
        place=random.integers(1, PLACES + 1, sizes.users).astype("S"),
        region=random.integers(1, 3, sizes.users).astype("S"),
        consent=np.full(sizes.users, b"full"),
        created_day=np.full(sizes.users, CUT_DAY - 330),
        feature_names=USER_FEATURES,
        cut_day=CUT_DAY,
    )


assert len(TAUS_DAYS) == 4  # `decayed` above has a column for each
