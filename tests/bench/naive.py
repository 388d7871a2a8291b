"""The naive build, for comparison: what gluing the usual parts together gives. `python -m tests.bench.naive --bundle DIR --whole DIR ...`

Of one request, in the order it is done, and why that is the usual way:

* one read of the user's row from the online store: a pickled dict in SQLite, as a first version keeps it;
* the user's vector from its own ONNX graph; faiss `IndexFlatIP` over FP32 item vectors (the first index of every tutorial, and exact);
  the 200 most popular beside it, 1000 candidates together;
* features from arrays in memory by index (`tests/bench/plain.py`): cheaper than the feature store's own client would be;
* light and heavy ranker exported whole, in FP32, the user's row repeated for every candidate, as they were trained;
* rules in a Python loop, a list of dicts out, behind KServe's default server and its v1 predict.

What a naive build may well lack is not held against it: it logs no exposures, keeps no session, gives no reasons, has no time budget, and
its ONNX sessions and faiss run on one thread without spinning, as ours do. Catalogue, networks, users and answer length are ours too.
"""

import argparse
import pickle
import sqlite3
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from serving.bundle.bundle import Bundle
from serving.bundle.catalogue import Catalogue
from serving.bundle.onnx import open_session
from serving.ranking.user_side import Standard
from serving.retrieval.two_tower import TowerTable
from serving.state.user_state import StateTable
from serving.system import System, load_system
from tests.bench.plain import Items, cross_rows, request_row

POPULAR = 200
BARRED = 3  # flags: recalled, out of stock


class NaiveRecommender:
    """The same bundle, answered the obvious way."""

    def __init__(self, bundle: Bundle, system: System, whole: Path, users: Path, store: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.system, self.items = system, items_of(bundle.catalogue)
        self.now = bundle.catalogue.cut_day
        table = TowerTable.load(bundle.folder / "sources" / "two_tower")
        vectors = np.ascontiguousarray(table.vectors * (table.scales / table.temperature)[:, None], np.float32)
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)
        self.history = np.asarray(table.history, np.float32)
        self.popular = bundle.fallback.static()[:POPULAR]
        self.sessions = {name: open_session(whole / f"{name}.onnx") for name in ("light", "heavy")}
        self.standard = Standard.load(bundle.folder / "request")
        self.tower = open_session(tower_of(bundle.folder / "request.onnx", store.parent / "tower.onnx"))
        self.users = fill_store(StateTable.load(users), bundle.catalogue, store)

    def recommend(self, user_id: str, k: int) -> list[dict[str, Any]]:
        """The k best items. Raises `KeyError` for a user nobody knows."""
        user = self._user(user_id)
        found_rows, found_scores = self._search(user)
        rows = np.array(list(dict.fromkeys([*self.popular.tolist(), *found_rows.tolist()]))[: self.system.pool_size])
        rows = rows[(self.items.flags[rows] & BARRED) == 0]
        score_of = dict(zip(found_rows.tolist(), found_scores.tolist(), strict=True))
        found = np.array([row in score_of for row in rows.tolist()])
        scores = np.array([score_of.get(row, 0.0) for row in rows.tolist()])
        request = request_row(user, self.now)
        cross = cross_rows(user, self.items, rows, scores, found, self.now, self.system)
        light = self._rank("light", request, rows, cross)
        kept = np.argsort(-light)[: self.system.light_size]
        heavy = self._rank("heavy", request, rows[kept], cross[kept])
        order = np.argsort(-heavy)
        return self._arranged(rows[kept][order].tolist(), heavy[order].tolist(), k)

    def _user(self, user_id: str) -> dict[str, Any]:
        row = self.users.execute("SELECT row FROM users WHERE user_id = ?", (user_id,)).fetchone()
        if row is None:
            raise KeyError(user_id)
        return dict(pickle.loads(row[0]))

    def _search(self, user: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        rows = [self.items.row_of[item] for item in user["items"]]
        weights = user["decayed"][:, 2]
        bag = (weights[:, None] * self.history[rows]).sum(axis=0) / max(weights.sum(), 1e-6)
        inputs = self.standard.inputs(request_row(user, self.now))
        (vector,) = self.tower.run(None, {"inputs": inputs, "bag": bag[None].astype(np.float32)})
        vector /= np.linalg.norm(vector)
        scores, found = self.index.search(vector, self.system.pool_size)
        return found[0], scores[0]

    def _rank(self, name: str, request: np.ndarray, rows: np.ndarray, cross: np.ndarray) -> np.ndarray:
        """One score a candidate: the chance of the head that judges it, times what that is worth."""
        codes = np.column_stack((self.items.category[rows], self.items.brand[rows])).astype(np.int64)
        given = {
            "request": np.repeat(request[None], len(rows), axis=0),
            "features": self.items.features[rows],
            "codes": codes,
            "cross": cross,
        }
        (logits,) = self.sessions[name].run(None, given)
        chances = 1 / (1 + np.exp(-logits))
        seen = cross[:, SEEN] > 0
        worth = [self.system.objectives[head].weight for head in ("repeat", "discover")]
        return np.where(seen, worth[0] * chances[:, 0], worth[1] * chances[:, 1])

    def _arranged(self, rows: list[int], scores: list[float], k: int) -> list[dict[str, Any]]:
        """At most three a category; one new item at the end where none is in."""
        items, chosen, per_category = self.items, [], Counter()
        for row, score in zip(rows, scores, strict=True):
            category = int(items.category[row, 1])
            if per_category[category] < 3:
                per_category[category] += 1
                chosen.append((row, score))
            if len(chosen) == k:
                break
        if not any(items.created[row] > self.now - 14 for row, _ in chosen):
            fresh = next(((row, score) for row, score in zip(rows, scores, strict=True) if items.created[row] > self.now - 14), None)
            chosen[-1:] = [fresh] if fresh else chosen[-1:]
        return [{"item_id": items.ids[row], "title": items.titles[row], "score": score} for row, score in chosen]


SEEN = 9  # column of the cross features: had before


def items_of(catalogue: Catalogue) -> Items:
    """The catalogue as plain arrays and dicts."""
    ids = [item.decode() for item in catalogue.item_ids.tolist()]
    ends = catalogue.title_ends.tolist()
    text = np.asarray(catalogue.title_bytes).tobytes()
    titles = [text[begin:end].decode() for begin, end in zip([0, *ends], ends, strict=False)]
    period = catalogue.plan_at(catalogue.cut_day)
    return Items(
        ids, titles, {item: row for row, item in enumerate(ids)},
        np.array(catalogue.category), np.array(catalogue.brand), np.array(catalogue.price, np.float64), np.array(catalogue.features),
        np.array(catalogue.flags), np.array(catalogue.created_day), np.array(catalogue.plan_display[period]),
        np.array(catalogue.plan_mailer[period]), dict(catalogue.place_index),
    )  # fmt: skip


def tower_of(request: Path, out: Path) -> Path:
    """The user tower alone, cut out of the graph that also makes our rankers' halves."""
    onnx.utils.extract_model(str(request), str(out), ["inputs", "bag"], ["vector"])
    return out


def fill_store(users: StateTable, catalogue: Catalogue, path: Path) -> sqlite3.Connection:
    """A row a user, by item id."""
    db = sqlite3.connect(path, check_same_thread=False)
    db.execute("CREATE TABLE users (user_id TEXT PRIMARY KEY, row BLOB)")
    ids = catalogue.item_ids

    def row(at: int) -> tuple[str, bytes]:
        state = users[at]
        kept = catalogue.rows_of_keys(state.keys)
        arrays = {
            "first": state.first_day,
            "last": state.last_day,
            "counts": state.counts,
            "decayed": state.decayed,
            "features": state.features,
        }
        whole: dict[str, Any] = {name: np.array(part) for name, part in arrays.items()}
        whole |= {"items": [item.decode() for item in ids[kept].tolist()], "place": state.place, "created": state.created_day}
        return state.user_id, pickle.dumps(whole)

    with db:
        db.executemany("INSERT INTO users VALUES (?, ?)", (row(at) for at in range(len(users))))
    return db


def main(arguments: list[str]) -> None:
    """Serve on KServe with its defaults; prints nothing, `/v2/health/ready` tells when it answers."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.naive")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--users", type=Path, required=True)
    parser.add_argument("--whole", type=Path, required=True, help="folder of the rankers exported whole: light.onnx, heavy.onnx")
    parser.add_argument("--system", default="shop")
    parser.add_argument("--port", type=int, default=8080)
    given = parser.parse_args(arguments)
    sys.argv = [sys.argv[0], f"--http_port={given.port}", "--grpc_port=0", "--enable_grpc=false"]
    import kserve

    with tempfile.TemporaryDirectory() as work:
        bundle = Bundle.load(given.bundle, verify=False)
        naive = NaiveRecommender(bundle, load_system(given.system), given.whole, given.users, Path(work) / "users.sqlite")

        class Naive(kserve.Model):
            def load(self) -> bool:
                self.ready = True
                return True

            def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
                return {"predictions": [{"items": naive.recommend(one["user_id"], one.get("k", 10))} for one in payload["instances"]]}

        model = Naive("naive")
        model.load()
        kserve.ModelServer().start([model])


if __name__ == "__main__":
    main(sys.argv[1:])
