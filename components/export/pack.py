"""The step pack: item table, sources, models and fallback lists of the last cut become one bundle, named by its content.

    pack(load_system("shop"), features, retrieval, export, out)      out/<digest>/

Shapes: I items, U users, R regions, N length of a list.
"""

import json
import math
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle.bundle import feature_schema, settings_of, write_bundle
from serving.bundle.catalogue import Catalogue
from serving.bundle.fallback import Fallback
from serving.state.user_state import StateTable
from serving.system import System

LIST_LENGTH = 1000
POPULAR_DAYS = 28.0  # an item counts once for every user who had it within these days
_SHRINK = 20.0  # users of everyone's list that a region's own are mixed with
_MODELS = ("request.onnx", "request", "item.onnx", "light.onnx", "heavy.onnx", "halves")
_AIDS = ("layers",)  # speed only: without them the graphs run


class NothingToPack(ValueError):
    """The features step left no cut."""


def pack(
    system: System, features: Path, retrieval: Path, export: Path, out: Path, lists: Path | None = None, parents: tuple[str, ...] = ()
) -> Path:
    """Write the bundle to `out/<digest>/` and return that folder; the same inputs give the same digest.

    `lists`: the Parquet of `shortlist batch`, whose lists answer when the models cannot (and are the pool of a hybrid system).
    `parents`: digests of the bundles this one was warm-started from.
    Raises `NothingToPack`, or `serving.bundle.bundle.BadBundle` naming a missing part.
    """
    cut = last_cut(features)
    sources = retrieval / "cuts" / cut.name / "sources"
    catalogue, users = Catalogue.load(cut / "item_table"), StateTable.load(cut / "users")
    manifest = {
        "system": system.name,
        "settings": settings_of(system),
        "schema": feature_schema(users.feature_names, catalogue.feature_names, system.kinds, system.learning.cross),
        "online": _online(features),
        "span": {"cut": cut.name, "cut_day": catalogue.cut_day, "users": len(users), "items": len(catalogue)},
        "code_version": version("shortlist"),
        "metrics": _metrics(export),
        "parents": sorted(parents),
    }
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".fallback-") as work:
        fallback(catalogue, users, lists).save(Path(work))
        parts = {"item_table": cut / "item_table", "fallback": Path(work)}
        parts |= {f"sources/{source.folder}": sources / source.folder for source in system.sources}
        parts |= {name: export / name for name in (*_MODELS, *(name for name in _AIDS if (export / name).exists()))}
        return write_bundle(parts, manifest, out)


def last_cut(features: Path) -> Path:
    """The folder of the newest cut: what a release is made of."""
    cuts = sorted(path for path in (features / "cuts").glob("*") if (path / "item_table").is_dir())
    if not cuts:
        raise NothingToPack(f"{features} holds no cut: run the features step")
    return cuts[-1]


def fallback(catalogue: Catalogue, users: StateTable, lists: Path | None = None) -> Fallback:
    """Popular lists of everyone and of each region, and the users' lists of a batch."""
    rows = catalogue.rows_of_keys(np.asarray(users.keys))  # (N,)
    recent = (rows >= 0) & (users.last_day >= users.cut_day - POPULAR_DAYS)
    owner = np.searchsorted(users.ends, np.flatnonzero(recent), side="right")  # user of each recent history row
    names, region = np.unique(users.region, return_inverse=True)
    everyone = np.bincount(rows[recent], minlength=len(catalogue)).astype(np.float64)  # (I,)
    share = everyone / max(everyone.sum(), 1.0)
    kept = [index for index, name in enumerate(names.tolist()) if name]
    own = [np.bincount(rows[recent][region[owner] == index], minlength=len(catalogue)) + _SHRINK * share for index in kept]
    user_ids, user_rows = _user_lists(catalogue, lists)
    return Fallback(
        regions=tuple(names[index].decode() for index in kept),
        region_rows=np.stack([_top(counts) for counts in own]) if own else np.empty((0, LIST_LENGTH), np.int32),
        static_rows=_top(everyone),
        user_ids=user_ids,
        user_rows=user_rows,
    )


def _top(counts: NDArray[np.float64]) -> NDArray[np.int32]:
    """Rows of the greatest counts above zero, ties by row, -1 beyond the end: (N,)."""
    order = np.argsort(-counts, kind="stable")[:LIST_LENGTH]
    order = order[counts[order] > 0]
    return np.concatenate((order, np.full(LIST_LENGTH - len(order), -1))).astype(np.int32)


def _user_lists(catalogue: Catalogue, lists: Path | None) -> tuple[NDArray[np.bytes_], NDArray[np.int32]]:
    """Users sorted by id and their rows from a batch file (columns user_id, item_id, rank); items the catalogue lacks are left out."""
    if lists is None:
        return np.empty(0, "S1"), np.empty((0, LIST_LENGTH), np.int32)
    from pyarrow import parquet

    table = parquet.read_table(lists, columns=["user_id", "item_id", "rank"])
    names = np.array([name.encode() for name in table["user_id"].to_pylist()])
    items = np.array([item.encode() for item in table["item_id"].to_pylist()])
    rank = np.asarray(table["rank"].to_numpy())
    found = np.minimum(np.searchsorted(catalogue.item_ids, items), len(catalogue) - 1)
    kept = np.asarray(catalogue.item_ids)[found] == items
    user_ids, user = np.unique(names, return_inverse=True)
    rows = np.full((len(user_ids), LIST_LENGTH), -1, np.int32)
    order = np.lexsort((rank, user))
    order = order[kept[order]]
    place = np.arange(len(order)) - np.searchsorted(user[order], user[order])
    short = place < LIST_LENGTH
    rows[user[order][short], place[short]] = found[order][short]
    return user_ids, rows


def _metrics(export: Path) -> dict[str, Any]:
    """What the export measured; a number that is not one becomes null.

    Not the sources' recall: it is measured on the week after the cut, and a bundle is named by nothing that came after its cut.
    """
    parity = export / "parity.json"
    return {"export": _plain(json.loads(parity.read_text()))} if parity.is_file() else {}


def _online(features: Path) -> dict[str, Any] | None:
    """Where a server finds a user's row in Feast's online store; None where the features step did not say."""
    report = features / "features.json"
    found: dict[str, Any] | None = json.loads(report.read_text()).get("online") if report.is_file() else None
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
