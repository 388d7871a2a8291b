"""What sources read of a user: of a long history the heaviest items alone."""

import numpy as np
import pytest

from feature_repo.names import TAUS_DAYS
from serving.query import Query, Request
from serving.retrieval.interest import interest
from serving.state.user_state import UserState
from tests.serving import tiny_bundle

CATALOGUE = tiny_bundle.catalogue()


@pytest.mark.parametrize("distinct", [1, 3, 1_000])
def test_of_equally_heavy_items_those_of_the_first_rows_are_kept(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    keys = np.sort(random.choice(CATALOGUE.keys, 60, replace=False))
    days, counts = np.full(len(keys), tiny_bundle.DAY), random.integers(1, distinct + 1, len(keys)).astype(np.float32)
    state = UserState("u", keys, days, days, counts, np.repeat(counts[:, None], len(TAUS_DAYS), 1))
    query = Query(Request("u", 10, tiny_bundle.DAY), state, CATALOGUE, tiny_bundle.system().learning)
    rows, weights = interest(query, TAUS_DAYS[0])
    kept = np.sort(np.argsort(-weights, kind="stable")[:20])
    found = interest(query, TAUS_DAYS[0], limit=20)
    assert (found[0].tolist(), found[1].tolist()) == (rows[kept].tolist(), weights[kept].tolist())
