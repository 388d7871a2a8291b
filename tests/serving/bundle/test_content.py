"""Content of the catalogue and content of a posted item are the same function."""

import numpy as np

from serving.bundle.content import BUCKETS, NUMBERS, TOKENS, catalogue_content, item_content
from tests.components.retrieval.worlds import catalogue


def test_an_item_posted_with_the_fields_of_a_catalogued_one_has_its_content() -> None:
    kinds = np.array([[1, 2, 3], [1, 2, 0], [0, 0, 0]])
    titles = [b"Ice - Crushed, 22 lb", b"", "Crème Brûlée".encode()]
    items = catalogue(
        ["a", "b", "c"],
        kinds,
        brand=np.array([1, 0, 1], np.int32),
        brand_names=("unknown", "Acme"),
        category_names=("unknown", "Food", "Food > Ice", "Food > Ice > Cubes"),
        price=np.array([2.5, np.nan, 0], np.float32),
        title_bytes=np.frombuffer(b"".join(titles), np.uint8),
        title_ends=np.cumsum([len(title) for title in titles]),
    )
    found = catalogue_content(items)
    posted = [
        item_content("Food > Ice > Cubes", "Acme", "Ice - Crushed, 22 lb", 2.5),
        item_content("Food > Ice"),
        item_content("", "Acme", "Crème Brûlée", 0.0),
    ]
    np.testing.assert_array_equal(found.tokens, np.concatenate([one.tokens for one in posted]))
    np.testing.assert_allclose(found.numbers, np.concatenate([one.numbers for one in posted]), rtol=1e-6)
    assert found.tokens.shape == (3, TOKENS)
    assert found.numbers.shape == (3, NUMBERS)
    np.testing.assert_allclose(found.numbers[0], np.log1p([2.5, 22]), rtol=1e-6)
    assert np.isnan(found.numbers[1:]).all()


def test_buckets_hold_nothing_at_zero_and_stay_in_range() -> None:
    tokens = item_content("Food", "", "one two three four five six seven eight nine ten").tokens[0]
    assert (tokens >= 0).all()
    assert (tokens < BUCKETS).all()
    assert tokens[1:4].tolist() == [0, 0, 0]  # no deeper category, no brand
    assert (tokens[4:] > 0).all()  # the first eight words


def test_case_does_not_matter_and_kinds_are_apart() -> None:
    assert item_content(brand="ACME").tokens.tolist() == item_content(brand="acme").tokens.tolist()
    assert item_content(brand="acme").tokens[0, 3] != item_content(title="acme").tokens[0, 4]
