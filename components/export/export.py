"""The step export: what the server runs, made from what was learnt, and the proof that the two agree.

export(load_system("shop"), features, retrieval, ranking, out)
    request.onnx item.onnx light.onnx heavy.onnx   the graphs; light and heavy in INT8 where that is harmless and faster
    request/                                       how request features are standardised for request.onnx
    layers/{request,light,heavy}/                  those graphs as arrays
    halves/{light,heavy}.npy                       item halves of the whole catalogue, float16 where that is harmless
    parity.json                                    torch against ONNX against INT8, on the same rows
    timing.json                                    microseconds; beside the release, not in it
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.cut import cut_folders, training_cuts
from components.export.graphs import candidate_graph, item_graph, layers_of, write_request
from components.export.onnx import to_int8
from components.export.parity import Drift, ParityCase, as_record, choose, drift, fastest_us, graph_logits, item_halves, torch_logits
from components.ranking.examples import candidates_of, chosen_users, padded, queries_of
from components.ranking.fitted import FittedCut, item_codes, load_cut
from components.ranking.model import Ranker, load
from components.retrieval.tower_model import Towers
from components.retrieval.twins import LEARNERS
from serving.bundle.catalogue import Catalogue
from serving.ranking.features import cross_features, request_features
from serving.ranking.heads import Heads
from serving.retrieval.two_tower import TowerTable
from serving.system import System

REQUESTS = 60  # asked of every form of a ranker
BLOCK = 4096  # items whose halves are made at once
TOLERANCE = 1e-3  # of a logit, torch against ONNX FP32


class NoParity(ValueError):
    """A graph does not answer like its network."""


def export(system: System, features: Path, retrieval: Path, ranking: Path, out: Path) -> dict[str, Any]:
    """Write the graphs, the halves and the parity record to `out`. Raises `NoParity` when ONNX and torch differ."""
    out.mkdir(parents=True, exist_ok=True)
    models = {name: load(ranking / f"{name}.pt") for name in ("light", "heavy")}
    catalogue = Catalogue.load(cut_folders(features)[-1] / "item_table")
    cut = load_cut(system, features, retrieval, training_cuts(features, 1)[0])
    requests = ask(system, cut, catalogue)
    record: dict[str, Any] = {"requests": len(requests), "candidates": sum(len(asked.seen) for asked in requests)}
    timing: dict[str, Any] = {}
    types = {}
    for name, kept in (("light", system.light_size), ("heavy", system.answer_size)):
        model = models[name]
        graph, types[name], record[name], timing[name] = export_ranker(model, requests, kept, system)
        (out / f"{name}.onnx").write_bytes(graph)
        layers_of(model).save(out / "layers" / name)
        if name == "light":
            requests = shortened(model, requests, system)
    towers, length = last_towers(system, retrieval, cut_folders(features)[-1].name)
    write_request(models["light"], models["heavy"], towers, out)
    (out / "item.onnx").write_bytes(item_graph(models["light"], models["heavy"], towers, length))
    write_halves(models, catalogue, types, out / "halves")
    for file, content in (("parity.json", record), ("timing.json", timing)):
        (out / file).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return record


def export_ranker(
    model: Ranker, requests: list[ParityCase], kept: int, system: System
) -> tuple[bytes, type, dict[str, Any], dict[str, float]]:
    """The graph to serve, the type of its item halves, what was measured, and how fast."""
    graphs = {"fp32": candidate_graph(model)}
    graphs["int8"] = to_int8(graphs["fp32"])
    expected = [torch_logits(model, asked) for asked in requests]

    def compared(graph: bytes, dtype: type) -> Drift:
        return drift(expected, graph_logits(graph, model, requests, dtype), requests, kept, Heads.of(system.objectives))

    exact = compared(graphs["fp32"], np.float32)
    if exact.largest > TOLERANCE:
        raise NoParity(
            f"ONNX and torch differ by {exact.largest:.2g} in a logit, expected at most {TOLERANCE}: check the exporter's version"
        )
    half = compared(graphs["fp32"], np.float16)
    dtype: type = np.float16 if half.harmless else np.float32
    int8 = compared(graphs["int8"], dtype)
    us = fastest_us(graphs, model, requests)
    served, why = choose(int8, us)
    record = {"served": served, "why": why, "halves": np.dtype(dtype).name, "kept": kept}
    record |= {"fp32": as_record(exact), "float16_halves": as_record(half), "int8": as_record(int8)}
    return graphs[served], dtype, record, {name: round(value, 1) for name, value in us.items()}


def ask(system: System, cut: FittedCut, names: Catalogue) -> list[ParityCase]:
    """Requests of the newest training cut, as the server would rank them; both kinds of question."""
    codes = item_codes(cut.catalogue, names)
    requests = []
    for user in chosen_users(cut, REQUESTS // 2, seed=0):
        for query in queries_of(system, cut, user):
            found = candidates_of(query, cut, system, user)
            if not len(found):
                continue
            requests.append(
                ParityCase(
                    request=padded(request_features(query), cut),
                    features=np.asarray(cut.catalogue.features)[found.rows],
                    codes=codes[found.rows],
                    cross=cross_features(query, found),
                    seen=found.seen,
                    label=np.isin(found.rows, cut.wanted(query.state.user_id)),
                )
            )
    return requests


def shortened(light: Ranker, requests: list[ParityCase], system: System) -> list[ParityCase]:
    """What the light ranker leaves to the heavy one."""
    short, heads = [], Heads.of(system.objectives)
    for asked in requests:
        best = np.argsort(-heads.scores(torch_logits(light, asked), asked.seen), kind="stable")[: system.light_size]
        short.append(replace(asked, **{name: getattr(asked, name)[best] for name in ("features", "codes", "cross", "seen", "label")}))
    return short


def last_towers(system: System, retrieval: Path, cut: str) -> tuple[Towers | None, float]:
    """The towers of a cut and the usual length of a row of its history bag; none when the system has no such source."""
    file, learnt = retrieval / "towers" / f"{cut}.pt", next((spec for spec in system.sources if spec.kind in LEARNERS), None)
    if learnt is None or not file.is_file():
        return None, 1.0
    history = TowerTable.load(retrieval / "cuts" / cut / "sources" / learnt.folder).history
    return Towers.load(file), float(np.linalg.norm(np.asarray(history, np.float32), axis=1).mean())


def write_halves(models: dict[str, Ranker], catalogue: Catalogue, types: dict[str, type], folder: Path) -> None:
    """Item halves of the whole catalogue."""
    folder.mkdir(parents=True, exist_ok=True)
    codes = item_codes(catalogue, catalogue)
    for name, model in models.items():
        blocks: list[NDArray[Any]] = [
            item_halves(model, np.asarray(catalogue.features)[begin : begin + BLOCK], codes[begin : begin + BLOCK]).astype(types[name])
            for begin in range(0, len(catalogue), BLOCK)
        ]
        np.save(folder / f"{name}.npy", np.concatenate(blocks), allow_pickle=False)
