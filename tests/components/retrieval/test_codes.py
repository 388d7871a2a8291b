"""Codes of any width: more brands and types than sixteen bits tell apart are learnt from and answered by, each item under its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.features.item_table import _category_codes, _codes
from components.retrieval import category_promotion
from feature_repo.names import TAUS_DAYS
from serving.native import kernel
from serving.ranking.features import cross_features
from serving.retrieval.category_promotion import CategoryPromotion
from serving.retrieval.category_promotion import category_promotion as spec_of
from serving.retrieval.fusion import retrieve
from tests.components.retrieval.worlds import CUT_DAY, catalogue, cut, query

ITEMS = 70_000
BOUGHT, TWIN = ITEMS - 2, ITEMS - 1  # of one brand and type, whose codes are beyond sixteen bits


@pytest.fixture(scope="module")
def world():
    """Every item but the twins of a brand and a type of its own; one user had everything once, one had one of the twins."""
    number = np.minimum(np.arange(ITEMS), BOUGHT)
    names, category = _category_codes([f"d > c > t{n:05d}" for n in number])
    brand_names, brand = _codes([f"b{n:05d}" for n in number], "unknown")
    assert min(brand[TWIN], category[TWIN, 2]) > 1 << 16
    items = catalogue([f"{n:05d}" for n in range(ITEMS)], category, brand=brand, category_names=names, brand_names=brand_names)
    few = cut([("all", "00000", CUT_DAY - 1), ("one", f"{BOUGHT:05d}", CUT_DAY - 2)], items)
    keys = np.sort(np.asarray(items.keys))
    own = slice(1, 2)  # of the second user, as it is
    whole = {
        "ends": np.array([ITEMS, ITEMS + 1]),
        "keys": np.concatenate((keys, few.users.keys[own])),
        **{name: np.concatenate((np.full(ITEMS, CUT_DAY - 1), getattr(few.users, name)[own])) for name in ("first_day", "last_day")},
        "counts": np.ones(ITEMS + 1, np.float32),
        "decayed": np.ones((ITEMS + 1, len(TAUS_DAYS)), np.float32),
    }
    return replace(few, users=replace(few.users, **whole))


def test_who_had_one_of_70000_brands_is_offered_what_is_of_it(world, tmp_path: Path) -> None:
    category_promotion.fit(world, spec_of(share=1.0), tmp_path)
    source = CategoryPromotion.load(tmp_path, spec_of(share=1.0), world.catalogue)
    asked, before, found = query(world.users[1], world.catalogue), kernel.native(), {}
    for native in {False, before}:
        kernel.use(native)
        try:
            assert set(source.retrieve(asked, 2).rows.tolist()) == {BOUGHT, TWIN}
            pool = retrieve(asked, [source], 50)
            found[native] = dict(zip(pool.rows.tolist(), cross_features(asked, pool).tolist(), strict=True))
        finally:
            kernel.use(before)
    assert found[False] == found[before]  # the compiled loops say the same
    other = next(row for row in found[False] if row not in (BOUGHT, TWIN))
    assert found[False][TWIN] != found[False][other]  # of the user's brand and type, though never had
