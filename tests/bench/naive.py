"""The naive build, for comparison: what gluing the usual parts together gives, `python -m tests.bench.naive --bundle DIR --whole DIR …`.

faiss Flat over the item vectors for 1000 candidates, both rankers in FP32 with the user's row repeated for every candidate and the item
side computed in the request, behind KServe's default v1 predict. State, features, rules and sentences are the product's own, so the
difference is retrieval, ranking and the server.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from serving.bundle import Bundle
from serving.catalogue import Catalogue
from serving.features import cross_features, request_features
from serving.query import Answer, Candidates, Floats, Query, Request, Rows
from serving.rankers import open_session
from serving.recommender import Recommender, Scores, Trace
from serving.state import StateTable, UserState
from serving.system import load_system

WHOLE = ("light", "heavy")


class NaiveRecommender:
    """The same bundle, answered the obvious way. Shapes: C candidates, D dimensions."""

    def __init__(self, engine: Recommender, whole: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.engine = engine
        self.place = next(at for at, source in enumerate(engine.sources) if source.spec.kind == "two_tower")
        table = engine.sources[self.place].table
        vectors = np.ascontiguousarray(table.vectors * (table.scales / table.temperature)[:, None], np.float32)
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)
        self.sessions = {name: open_session(whole / f"{name}.onnx") for name in WHOLE}

    def recommend(self, request: Request, state: UserState) -> Answer:
        """An answer with the same rules and sentences."""
        engine = self.engine
        query = engine.query(request, state)
        pool = self._retrieve(query)
        permitted = engine.rules.permits(pool.rows)
        pool = pool.take(permitted)
        features = request_features(query)
        cross = cross_features(query, pool)
        light = engine._worth(self._score("light", features, pool.rows, cross), pool, cross)
        order = np.lexsort((pool.rows, -light)).astype(np.int32)
        kept = order[: engine.system.light]
        heavy = engine._worth(self._score("heavy", features, pool.rows[kept], cross[kept]), pool.take(kept), cross[kept])
        scores = Scores(light, kept, heavy, cross, order)
        arranged = engine.arrange(query, engine.order(pool, scores))
        return engine.answer(Trace(query, pool, scores, arranged.moves), arranged)

    def _retrieve(self, query: Query) -> Candidates:
        engine = self.engine
        vector = engine.request(query).vector.reshape(1, -1)
        scores, rows = self.index.search(np.ascontiguousarray(vector, np.float32), engine.system.pool)
        rows = rows[0].astype(np.int32)
        sources = len(engine.sources)
        source_scores, ranks = np.zeros((len(rows), sources), np.float32), np.full((len(rows), sources), np.inf, np.float32)
        source_scores[:, self.place], ranks[:, self.place] = scores[0], np.arange(len(rows))
        fused = (1 / (60 + np.arange(len(rows)))).astype(np.float32)
        return Candidates(rows, source_scores, ranks, fused, np.isin(rows, query.history_rows))

    def _score(self, name: str, features: Floats, rows: Rows, cross: Floats) -> Floats:
        catalogue: Catalogue = self.engine.catalogue
        codes = np.column_stack((catalogue.category[rows], catalogue.brand[rows])).astype(np.int64)  # (C, 4)
        given = {
            "request": np.repeat(features[None], len(rows), axis=0),  # (C, Fr)
            "features": np.asarray(catalogue.features[rows]),
            "codes": codes,
            "cross": cross,
        }
        (logits,) = self.sessions[name].run(None, given)
        return np.asarray(logits)


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

    system = load_system(given.system)
    bundle = Bundle.load(given.bundle, verify=False)
    naive = NaiveRecommender(Recommender(bundle, system), given.whole)
    users = StateTable.load(given.users)

    class Naive(kserve.Model):
        def load(self) -> bool:
            self.ready = True
            return True

        def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
            return {"predictions": [_plain(naive.recommend(*_asked(one, users, bundle))) for one in payload["instances"]]}

    model = Naive("naive")
    model.load()
    kserve.ModelServer().start([model])


def _asked(one: dict[str, Any], users: StateTable, bundle: Bundle) -> tuple[Request, UserState]:
    at = users.index(one["user_id"])
    state = users[at] if at >= 0 else UserState(one["user_id"])
    return Request(one["user_id"], one.get("k", 10), bundle.catalogue.cut_day, "naive"), state


def _plain(answer: Answer) -> dict[str, Any]:
    return {
        "request_id": answer.request_id,
        "bundle": answer.bundle,
        "items": [
            {"item_id": item.item_id, "score": item.score, "sources": list(item.sources), "reason": item.reason} for item in answer.items
        ],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
