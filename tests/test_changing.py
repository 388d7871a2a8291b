"""`docs/changing.md` is true: each diff is applied to a copy of the tree, and what it says then holds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "changing.md").read_text()
CHANGES = dict(re.findall(r"^## (.+?)\n.*?^```diff\n(.*?)^```", TEXT, re.M | re.S))
TINY = "from tests.serving.tiny_bundle import DAY, catalogue, states\nTABLE = catalogue()\n"
THEN = {  # what is run in the changed tree: known answers
    "A feature": """
import datetime, ibis
from feature_repo.expressions import stats
from feature_repo.shop import features as shop
row = {"user_id": "u", "session": "s", "brand": "b", "store": "p", "repeat": 0, "spend": 1.0, "price": 1.0, "promoted": 0.0}
rows = [row | {"item_id": str(n), "type": kind, "timestamp": datetime.datetime(2024, 1, day)} for n, (kind, day) in
        enumerate([("milk", 30), ("milk", 29), ("bread", 28), ("salt", 1)])]
since = datetime.datetime(2023, 1, 1)
thing = {"item_id": "0", "brand": "b", "category": "food > milk", "attributes": {"size": "1 l"}, "created_at": since}
items = ibis.memtable([thing])
had = ibis.memtable(rows)
found = stats(shop.user_stats.features, "user_id", had, had, items, None, datetime.datetime(2024, 2, 1)).execute()
assert abs(found.user_types_28[0] - 1.0986123) < 1e-6, found  # milk and bread: log 3
""",
    "A cross feature": TINY
    + """
import numpy as np
from serving.query import Candidates, Query, Request
from serving.ranking.features import cross_features
from serving.system import load_system
system, user, n = load_system("shop"), states()[3], 20
query = Query(Request("u03", 10, DAY), user, TABLE, system.learning)
none = np.zeros((n, 5), np.float32)
pool = Candidates(np.arange(n, dtype=np.int32), none, none, np.ones(n, np.float32), np.zeros(n, bool))
usual = np.mean([TABLE.price[row] for row in query.history_rows])
assert len(query.history_rows)
np.testing.assert_allclose(cross_features(query, pool)[:, -1], [np.log(TABLE.price[row] / usual) for row in range(n)], rtol=1e-5)
""",
    "A feature known elsewhere": """
from components.features.store import definitions
from serving.system import load_system
(own,) = definitions(load_system("shop")).own
assert (own.name, own.key, own.columns, own.timestamp) == ("loyalty", "user_id", {"loyalty_points": "loyalty_points"}, "event_timestamp")
assert own.path.name == "loyalty.parquet" and own.path.parent.name == "shop"
""",
    "A rule": TINY
    + """
import numpy as np
from dataclasses import replace
from serving.query import Request
from serving.rules.arrange import Rules
from serving.rules.slate import Ranked
from serving.system import load_system
prices = np.full(len(TABLE), 1.0, np.float32)
prices[[0, 8]] = 60
rules = Rules(load_system("shop").rules, replace(TABLE, price=prices), 10)
rows = np.arange(200, dtype=np.int32)
got = rules.arrange(Ranked(rows, np.linspace(1, 0, 200, dtype=np.float32), np.zeros(200, bool)), Request("u", 10, DAY)).rows
assert not {0, 8} & set(got.tolist()), got
assert np.bincount(TABLE.brand[got])[1:].max() <= 2, got
""",
    "A source": TINY
    + """
import tempfile, pathlib, types
from components.retrieval.twins import fit_of
from serving.query import Query, Request
from serving.retrieval.sources import load_sources
from serving.system import Learning, load_system
spec = load_system("shop").sources[-1]
folder = pathlib.Path(tempfile.mkdtemp())
fit_of(spec.kind)(types.SimpleNamespace(), spec, folder / spec.folder, False)
(source,) = load_sources([spec], folder, TABLE)
state = states()[3]
rows = source.retrieve(Query(Request("u03", 10, DAY), state, TABLE, Learning()), 50).rows
assert len(rows) and (DAY - TABLE.created_day[rows] < 14).all(), rows
had = TABLE.category[TABLE.rows_of_keys(state.keys), 1]
assert set(TABLE.category[rows, 1]) <= set(had), rows
""",
    "A system": """
from serving.bundle.bundle import settings_of
from serving.system import load_system
corner = load_system("corner")
assert (corner.name, corner.answer_size) == ("corner", 5)
assert settings_of(corner)["rules"][-1] == {"kind": "at_least", "settings": {"count": 2, "newer_than_days": 28}}
assert load_system("shop").answer_size == 10
""",
    "A ranker's widths, and which smaller forms may be served": """
from components.ranking.model import Ranker, Sizes
from serving.system import load_system
learning = load_system("shop").learning
heavy = learning.heavy
model = Ranker(Sizes(3, 4, 6, (5,) * 4, heavy.hidden, ("a",), towers=heavy.towers, dropout=heavy.dropout))
assert model.item_side[0].out_features == 256 and model.top[0].out_features == 128
assert learning.compression.student == (64, 32)
""",
    "A threshold": "from components.evaluation import gate\nassert gate.SLICE_USERS == 50\n",
    "A metric": """
import numpy as np
from components.evaluation.compare import scores
from components.evaluation.metrics import Target
lists, target = np.array([[1, 2], [3, 4]], np.int32), Target(np.array([0, 1]), np.array([1, 4], np.int32), 2)
assert scores(lists, target)["hit_rate@1"].tolist() == [1, 0]
""",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is copied once: the code, and the tests' tiny world."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in ("feature_repo", "serving", "components", "pipelines", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.mark.parametrize("title", THEN)
def test_a_change_of_the_page_applies_and_does_what_it_says(tree: Path, title: str) -> None:
    def patch(*how: str) -> None:
        subprocess.run(["patch", "--batch", "--quiet", "-p1", *how], cwd=tree, input=CHANGES[title], text=True, check=True, timeout=30)

    patch("--fuzz=0")
    try:
        run = subprocess.run(
            [sys.executable, "-c", THEN[title]],
            cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    finally:
        patch("--reverse")
    assert run.returncode == 0, run.stderr


def test_every_change_of_the_page_is_tried_and_is_two_or_three_files_at_most() -> None:
    assert list(CHANGES) == list(THEN)
    assert all(1 <= diff.count("\n+++ ") + diff.startswith("+++ ") <= 3 for diff in CHANGES.values())
