"""A posted item of a learnt bundle is in the pool of those who like its kind, through the content tower, a moment after it was posted."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from serving.bundle.bundle import Bundle
from serving.bundle.content import catalogue_content
from serving.messages import NewItem
from serving.new_items.extend import grown
from serving.query import Request
from serving.recommender import Recommender
from serving.retrieval.two_tower import TwoTower
from serving.state.user_state import StateTable
from tests.conftest import Trained


@pytest.fixture(scope="module")
def base(trained: Trained) -> Recommender:
    """The world's recommender with more room for the tower: 32 of its 80 candidates; the first place for a new item is the 25th."""
    sources = tuple(replace(spec, share=0.4 if spec.kind == "two_tower" else 0.15) for spec in trained.system.sources)
    return Recommender(Bundle.load(trained.bundle), replace(trained.system, sources=sources))


def twin_of(base: Recommender, row: int) -> NewItem:
    """An item with all the content of one that is known, under another id."""
    catalogue = base.catalogue
    paths = [catalogue.category_names[code] for code in catalogue.category[row] if code]
    brand = catalogue.brand_names[catalogue.brand[row]] if catalogue.brand[row] else ""
    price = float(catalogue.price[row])
    return NewItem("a twin", paths[-1] if paths else "", brand, catalogue.title(row), None if np.isnan(price) else price)


def test_a_twin_is_read_as_its_original_is(base: Recommender) -> None:
    larger = grown(base, [twin_of(base, 3)])
    content = catalogue_content(larger.catalogue)
    assert content.tokens[-1].tolist() == content.tokens[3].tolist()
    assert np.allclose(content.numbers[-1], content.numbers[3], equal_nan=True)


def test_a_posted_item_is_retrieved_for_users_through_the_tower(base: Recommender, trained: Trained) -> None:
    users = StateTable.load(trained.users)
    tower = next(source for source in base.sources if isinstance(source, TwoTower))
    listed = pooled = 0
    for index in range(0, len(users), len(users) // 20):
        state = users[index]
        request = Request(state.user_id, trained.system.answer_size, users.cut_day + 0.5)
        query = base.query(request, state)
        best = int(tower.retrieve(query, 30, base.user_side(query).vector).rows[0])  # what the tower finds nearest to this user
        larger = grown(base, [twin_of(base, best)])
        asked, row = larger.query(request, state), larger.catalogue.row_of("a twin")
        nearest = next(source for source in larger.sources if isinstance(source, TwoTower))
        listed += row in nearest.retrieve(asked, 80, larger.user_side(asked).vector).rows
        pooled += row in larger.retrieve(asked).rows
        assert len(larger.recommend(structs.replace(request, k=5), state).items) == 5
    # By content alone, without the vector of its own that its original has learnt, it is among the best three new items of everybody,
    # and the best of most.
    assert listed >= 20
    assert pooled >= 10
