"""The step export: what the server runs, made from what was learnt, and the proof that the two agree.

export(load_system("shop"), features, retrieval, ranking, out)
    request.onnx item.onnx light.onnx heavy.onnx   the graphs; light and heavy in the form that is harmless and fastest
    request/                                       how request features are standardised for request.onnx
    layers/{request,light,heavy}/                  those graphs as arrays
    halves/{light,heavy}.npy                       item halves of the whole catalogue, float16 where that is harmless
    parity.json                                    every form of the rankers on the same rows: loss, bytes, which is served and why
    timing.json                                    CPU microseconds of a call by form and candidates; beside the release, not in it
"""

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.cut import cut_folders, training_cuts
from components.export.forms import FULL, Form, as_record, choose, costs, made, qualities
from components.export.graphs import item_graph, layers_of, write_request
from components.export.parity import PER_CANDIDATE, ParityCase, item_halves, torch_logits
from components.ranking.examples import candidates_of, chosen_users, padded, queries_of
from components.ranking.fitted import FittedCut, item_codes, load_cut
from components.ranking.model import Ranker, load
from components.retrieval.tower_model import Towers
from components.retrieval.twins import LEARNERS
from serving.bundle.catalogue import Catalogue
from serving.networks import Compression
from serving.ranking.features import cross_features, request_features
from serving.ranking.heads import Heads
from serving.retrieval.two_tower import TowerTable
from serving.system import System

CUTS = 6  # newest training cuts whose requests are asked where many are wanted
BLOCK = 4096  # items whose halves are made at once
TOLERANCE = 1e-3  # of a logit, torch against ONNX FP32


class NoParity(ValueError):
    """A graph does not answer like its network."""


def export(system: System, features: Path, retrieval: Path, ranking: Path, out: Path) -> dict[str, Any]:
    """Write the graphs, the halves and the parity record to `out`. Raises `NoParity` when ONNX and torch differ."""
    out.mkdir(parents=True, exist_ok=True)
    learning = system.learning
    models = {name: load(ranking / f"{name}.pt") for name in ("light", "heavy")}
    catalogue = Catalogue.load(cut_folders(features)[-1] / "item_table")
    networks = {"light": learning.light, "heavy": learning.heavy}
    drawn = any(models[name].sizes.hidden == network.hidden for name, network in networks.items())
    bounds = learning.compression if drawn else learning.compression.untaught
    lessons, requests = asked_of(system, features, retrieval, catalogue, bounds)
    record: dict[str, Any] = {"requests": len(requests), "candidates": sum(len(asked.seen) for asked in requests), "taught": len(lessons)}
    timing: dict[str, Any] = {}
    types = {}
    for name, kept, count in (("light", system.light_size, system.pool_size), ("heavy", system.answer_size, system.light_size)):
        forms = made(models[name], networks[name], bounds, lessons)
        form, types[name], record[name], timing[name] = chosen(forms, requests, kept, count, len(catalogue), system, bounds)
        models[name] = form.model
        (out / f"{name}.onnx").write_bytes(form.graph)
        if (layers := layers_of(form.model)) is not None:
            layers.save(out / "layers" / name)
        if name == "light":
            lessons, requests = (shortened(form.model, asked, system) for asked in (lessons, requests))
    towers, length = last_towers(system, retrieval, cut_folders(features)[-1].name)
    write_request(models["light"], models["heavy"], towers, out)
    (out / "item.onnx").write_bytes(item_graph(models["light"], models["heavy"], towers, length))
    write_halves(models, catalogue, types, out / "halves")
    for file, content in (("parity.json", record), ("timing.json", timing)):
        (out / file).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return record


def chosen(
    forms: dict[str, Form], requests: list[ParityCase], kept: int, count: int, items: int, system: System, bounds: Compression
) -> tuple[Form, type, dict[str, Any], dict[str, Any]]:
    """The form to serve, the type of its item halves, what was measured, and what each form costs.

    `kept`: candidates that count; `count`: those a request has, by which the fastest is the fastest.
    """
    objectives = system.objectives
    half = qualities({FULL: forms[FULL]}, requests, kept, objectives, np.float16)[FULL]
    dtype: type = np.float32 if half.refused(Compression()) else np.float16
    found = qualities(forms, requests, kept, objectives, dtype)
    exact = qualities({name: form for name, form in forms.items() if "int8" not in name}, requests, kept, objectives, np.float32)
    for name, one in exact.items():
        if one.parity > TOLERANCE:
            raise NoParity(
                f"{name}: ONNX and torch differ by {one.parity:.2g} in a logit, expected at most {TOLERANCE}: check the exporter's version"
            )
    us = costs(forms, requests, dtype)
    nearest = min(us[FULL], key=lambda timed: abs(timed - count))
    served, why, refused = choose(found, {name: us[name][nearest][0] for name in forms}, bounds)
    record: dict[str, Any] = {"served": served, "why": why, "refused": refused, "halves": np.dtype(dtype).name, "kept": kept}
    record["forms"] = {
        name: as_record(one)
        | {"hidden": list(forms[name].model.sizes.hidden), "graph_bytes": len(forms[name].graph)}
        | {"halves_bytes": items * forms[name].model.sizes.hidden[0] * np.dtype(dtype).itemsize}
        for name, one in found.items()
    }
    record["exact"] = as_record(exact[FULL])
    timing = {name: {str(timed): [round(value, 1) for value in pair] for timed, pair in told.items()} for name, told in us.items()}
    return forms[served], dtype, record, timing


def asked_of(
    system: System, features: Path, retrieval: Path, names: Catalogue, bounds: Compression
) -> tuple[list[ParityCase], list[ParityCase]]:
    """The requests that pupils learn from, and those of other users that all forms are judged by; newest cuts first.

    Which of the two a user is for hangs on the name alone, so it is the same at every cut.
    """
    lessons: list[ParityCase] = []
    judged: list[ParityCase] = []
    for name in reversed(training_cuts(features, CUTS if bounds.taught else 1)):
        cut = load_cut(system, features, retrieval, name)
        codes = item_codes(cut.catalogue, names)
        users = chosen_users(cut, (bounds.judged + bounds.taught) // 2, seed=0)
        for user in users:
            taught = bool(bounds.taught) and zlib.crc32(cut.users[user].user_id.encode()) % (bounds.judged + bounds.taught) >= bounds.judged
            group, most = (lessons, bounds.taught) if taught else (judged, bounds.judged)
            if len(group) < most:
                group += ask(system, cut, codes, user)
        if len(judged) >= bounds.judged and len(lessons) >= bounds.taught:
            break
    return lessons, judged


def ask(system: System, cut: FittedCut, codes: NDArray[np.int32], user: int) -> list[ParityCase]:
    """A user's requests at a cut, as the server would rank them; both kinds of question."""
    requests = []
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
                outcome=cut.came_of(query.state.user_id, found.rows),
            )
        )
    return requests


def shortened(light: Ranker, requests: list[ParityCase], system: System) -> list[ParityCase]:
    """What the light ranker leaves to the heavy one."""
    short, heads = [], Heads.of(system.objectives)
    for asked in requests:
        best = np.argsort(-heads.scores(torch_logits(light, asked), asked.seen), kind="stable")[: system.light_size]
        short.append(replace(asked, **{name: getattr(asked, name)[best] for name in PER_CANDIDATE}))
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
