"""What the engine costs without a server: CPU a request in this process, by stage.

`python -m tests.bench.engine --bundle DIR --users DIR` prints one JSON object: milliseconds of process CPU a request (median of rounds),
and the wall milliseconds of each stage.
"""

import argparse
import gc
import json
import sys
import time
from pathlib import Path

import numpy as np

from serving.bundle import Bundle
from serving.query import Request
from serving.recommender import Recommender
from serving.run import keep_freed_memory
from serving.state import StateTable, UserState
from serving.system import load_system

ROUNDS = 5


def measure(system: str, bundle: Path, users: Path, count: int) -> dict[str, object]:
    """Answer for `count` users, ROUNDS times; the state is unpacked each time, as the server does after its one read."""
    keep_freed_memory()
    engine = Recommender(Bundle.load(bundle, verify=False), load_system(system))
    table = StateTable.load(users)
    packed = [table[at].pack() for at in np.linspace(0, len(table) - 1, count).astype(int).tolist()]
    day = engine.catalogue.cut_day

    def answer(at: int) -> dict[str, float]:
        state = UserState.unpack(packed[at])
        return engine.recommend(Request(state.user_id, engine.system.answer, day, str(at)), state).stage_ms

    for at in range(min(50, count)):
        answer(at)
    gc.collect()
    gc.freeze()
    cpu, stages = [], []
    for _ in range(ROUNDS):
        begin = time.process_time()
        stages += [answer(at) for at in range(count)]
        cpu.append(1000 * (time.process_time() - begin) / count)
    by_stage = {name: round(float(np.median([stage[name] for stage in stages])), 4) for name in stages[0]}
    return {"cpu_ms": round(float(np.median(cpu)), 4), "cpu_ms_rounds": [round(one, 4) for one in cpu], "stage_ms": by_stage}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine")
    parser.add_argument("--system", default="shop")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--users", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    json.dump(measure(given.system, given.bundle, given.users, given.count), sys.stdout)


if __name__ == "__main__":
    main()
