"""The naive build is a fair one: its plain features are the product's, its lists keep the rules."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from feature_repo.names import cross_names
from serving.bundle.bundle import Bundle
from serving.query import Candidates, Query, Request
from serving.ranking.features import cross_features, request_features
from serving.state.user_state import StateTable
from serving.system import load_system
from tests.bench.naive import NaiveRecommender
from tests.bench.plain import cross_rows, request_row
from tests.bench.synthetic import Sizes, write_synthetic

SYSTEM = load_system("shop")
SIZES = Sizes(items=3_000, users=20, with_neighbours=500, neighbours=20, on_offer=400)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NaiveRecommender, Bundle, StateTable]]:
    folder = tmp_path_factory.mktemp("naive")
    made, users = write_synthetic(SYSTEM, folder, SIZES)
    bundle = Bundle.load(made)
    naive = NaiveRecommender(bundle, SYSTEM, folder / "whole", users, folder / "users.sqlite")
    yield naive, bundle, StateTable.load(users)
    naive.users.close()


def test_what_it_tells_its_rankers_is_what_ours_are_told(built: tuple[NaiveRecommender, Bundle, StateTable]) -> None:
    naive, bundle, table = built
    names = [name for name in cross_names(SYSTEM.kinds) if not name.startswith(("sources", "score_", "relative_", "rank_"))]
    columns = [cross_names(SYSTEM.kinds).index(name) for name in names]
    for at in range(len(table)):
        query = Query(Request(table[at].user_id, 10, bundle.catalogue.cut_day), table[at], bundle.catalogue, SYSTEM.learning)
        rows = np.unique(np.concatenate((np.arange(at, SIZES.items, 7), query.history_rows))).astype(np.int32)
        shape = (len(rows), len(SYSTEM.sources))
        fused = (1 / (60 + np.arange(len(rows)))).astype(np.float32)
        seen = np.isin(rows, query.history_rows)
        candidates = Candidates(rows, np.zeros(shape, np.float32), np.full(shape, np.inf, np.float32), fused, seen)
        user = naive._user(table[at].user_id)
        plain = cross_rows(user, naive.items, rows, np.ones(len(rows)), np.ones(len(rows), bool), naive.now, SYSTEM)
        np.testing.assert_allclose(plain[:, columns], cross_features(query, candidates)[:, columns], atol=2e-3)
        np.testing.assert_allclose(request_row(user, naive.now), request_features(query), atol=1e-4)


def test_its_lists_are_whole_and_keep_the_rules(built: tuple[NaiveRecommender, Bundle, StateTable]) -> None:
    naive, bundle, table = built
    for user in table.user_ids.tolist():
        ids = [item["item_id"] for item in naive.recommend(user.decode(), 10)]
        rows = [bundle.catalogue.row_of(one) for one in ids]
        assert len(set(ids)) == 10
        assert not (bundle.catalogue.flags[rows] & 3).any()
        assert max(Counter(bundle.catalogue.category[rows, 1].tolist()).values()) <= 3
