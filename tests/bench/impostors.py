"""Whether recommenders that know nothing are refused as candidates: each asked in the candidate's place, by the gate's own rule.

python -m tests.bench.impostors SYSTEM FEATURES      on the judged week of a features step's output
python -m tests.bench.impostors --movielens WHEEL    on MovieLens-100K, which lies in the wheel of recbole 1.2.1
"""

import io
import sys
import tempfile
import zipfile
from pathlib import Path

from components.evaluation.compare import Known
from components.evaluation.evidence import Difference
from components.evaluation.gate import is_ahead
from components.evaluation.impostors import impostors, judged
from components.evaluation.truth import new_target, read_truth
from components.evaluation.visible import NEW, barred_items, deciding_protocol, measures
from serving.system import System, load_system

RATED = "recbole/dataset_example/ml-100k/ml-100k"


def ask(system: System, features: Path) -> bool:
    """Print each impostor's deciding measure and the rivals it is not ahead of; whether all are refused."""
    truth, new_only = read_truth(features), deciding_protocol(system) == NEW
    barred = barred_items(system, truth.catalogue)
    lists = impostors(truth, Known.of(truth.states, truth.catalogue), barred, new_only=new_only, k=system.answer_size)
    target = new_target(truth) if new_only else truth.target
    found = judged(lists["popularity"], lists, target, measures(system)[0])
    print(f"{system.name}, cut {truth.cut}, protocol {deciding_protocol(system)}: {found['users']} users, {measures(system)[0]}")
    refused = []
    for name, against in found["asked"].items():
        ahead = {rival: is_ahead(Difference(d["value"], d["error"], found["users"], 0.0))[0] for rival, d in against.items()}
        refused.append(not all(ahead.values()))
        behind = ", ".join(rival for rival, before in ahead.items() if not before)
        print(f"  {name}: {found['values'][name]['value']:.4f}: {'refused, not ahead of ' + behind if refused[-1] else 'PASSES'}")
    return all(refused)


def movielens(wheel: Path, folder: Path) -> tuple[System, Path]:
    """MovieLens-100K as four tables, a system that fits them, and its features."""
    import pandas as pd

    from components.data.ingest import ingest
    from components.data.validate import validate
    from components.features.build import build
    from components.features.moments import moment
    from pipelines.new import new

    with zipfile.ZipFile(wheel) as packed:
        parts = {kind: pd.read_csv(io.BytesIO(packed.read(f"{RATED}.{kind}")), sep="\t", dtype=str) for kind in ("inter", "item")}
    rated, films = (part.rename(columns=lambda name: name.split(":")[0]) for part in parts.values())
    when = pd.to_datetime(rated["timestamp"].astype(float), unit="s", utc=True).astype("datetime64[us, UTC]")
    events = rated[["user_id", "item_id"]].assign(
        event_id=[f"r{number}" for number in range(len(rated))], event_type="rating", timestamp=when, value=rated["rating"].astype(float)
    )
    data = folder / "data"
    data.mkdir()
    events.sort_values("timestamp", kind="stable").to_parquet(data / "events.parquet", index=False)
    items = films[["item_id"]].assign(title=films["movie_title"], category=films["class"].str.split(" ").str[0])
    items.to_parquet(data / "items.parquet", index=False)
    new("films", data, folder)
    file = folder / "films.py"
    system = load_system(str(file))
    ingest(system, folder / "tables", data)
    validate(system, folder / "tables", folder / "accepted")
    build(system, folder / "accepted", folder / "features", moment(str(file), folder / "accepted", ""), 1)
    return system, folder / "features"


def main(words: list[str]) -> int:
    """0 when every impostor is refused."""
    if words[:1] == ["--movielens"]:
        with tempfile.TemporaryDirectory() as folder:
            return 0 if ask(*movielens(Path(words[1]), Path(folder))) else 1
    return 0 if ask(load_system(words[0]), Path(words[1])) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
