"""What the engine costs without a server: CPU a request in a process of its own, for the same users in the same order.

`python -m tests.bench.engine --bundle DIR --users DIR` reads one JSON object a line, `{"users": [...], "rate": 200}` (rate 0: one request
after the other), and prints one for each: milliseconds of process CPU a request, and the median wall milliseconds of each stage.
`{"events": [[user, item, day], ...]}` gives users a session first. A request here is the one online read and `Recommender.recommend`: at
a rate it sleeps between requests as a server does, so that both meet the same cold caches.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from serving.bundle.bundle import Bundle
from serving.native import kernel
from serving.query import Request
from serving.recommender import Recommender
from serving.state.states import States, open_store
from serving.state.store import StateEvent
from serving.state.user_state import StateTable
from serving.system import load_system
from serving.worker.memory import keep_freed_memory, use_large_pages


class Engine:
    """A recommender with the store its server would read."""

    def __init__(self, system: str, bundle: Path, users: Path, folder: Path) -> None:
        keep_freed_memory()
        self.recommender = Recommender(Bundle.load(bundle, verify=False), load_system(system))
        made = self.recommender.system
        self.states = States(
            open_store(f"sqlite:{folder / 'states.sqlite'}", made.budget.features_ms), StateTable.load(users), made.learning
        )
        self.day = self.recommender.catalogue.cut_day
        for state in self.states.some(50):
            self.answer(state.user_id, "warm")
        use_large_pages()

    def touch(self, events: Sequence[tuple[str, str, float]]) -> None:
        """Each user looks at an item; the clock moves on to the newest."""
        self.states.apply(StateEvent(f"touch-{at}", user, item, "product_view", day) for at, (user, item, day) in enumerate(events))
        self.day = max(self.day, *(day for _, _, day in events))

    def answer(self, user: str, request_id: str) -> dict[str, float]:
        state = self.states.read(user)
        return self.recommender.recommend(Request(user, self.recommender.system.answer_size, self.day, request_id), state).stage_ms

    def measure(self, users: Sequence[str], rate: float) -> dict[str, Any]:
        """Answer once for each user."""
        gc.collect()
        gc.freeze()
        stages = []
        begin, began = time.perf_counter(), time.process_time()
        for at, user in enumerate(users):
            if rate:
                time.sleep(max(begin + at / rate - time.perf_counter(), 0))
            stages.append(self.answer(user, str(at)))
        spent = time.process_time() - began
        by_stage = {name: round(float(np.median([stage[name] for stage in stages])), 4) for name in stages[0]}
        return {"cpu_ms": 1000 * spent / len(users), "stage_ms": by_stage}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine")
    parser.add_argument("--system", default="shop")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--users", type=Path, required=True)
    parser.add_argument("--kernel", choices=("auto", "native", "pure"), default="auto")
    given = parser.parse_args()
    if given.kernel != "auto":
        kernel.use(given.kernel == "native")
    with TemporaryDirectory() as folder:
        engine = Engine(given.system, given.bundle, given.users, Path(folder))
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            if "events" in asked:
                engine.touch(asked["events"])
                print("{}", flush=True)
            else:
                print(json.dumps(engine.measure(asked["users"], asked["rate"])), flush=True)


if __name__ == "__main__":
    main()
