"""The towers' vectors in a file, for whatever else wants to search, cluster or learn by them: of every item, or of every user."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import typer

from components.release.releases import released
from serving.bundle.arrays import Floats
from serving.query import Request
from serving.recommender import Recommender
from serving.retrieval.source import Vectors
from serving.state.user_state import StateTable
from serving.system import load_system

USERS_AT_ONCE = 10_000  # in one row group


class NoVectors(ValueError):
    """The system has no source that knows any; the message says so."""


def vectors(system: str, out: Path, *, items: bool, home: Path, bundle: Path | None = None) -> int:
    """Write item_id, vector and prior of every item, or user_id and vector of every user, to `out`; the rows written.

    A user's score of an item is `user . item / temperature + prior`, as the two-tower source searches; the temperature, dimensions and the
    bundle's digest stand in the file's metadata. Users are as at the bundle's cut. Raises `NoVectors`.
    """
    import pyarrow.parquet as pq

    from components.evaluation.batch import open_recommender

    found = released(system, home, bundle)
    recommender = open_recommender(load_system(system), found.bundle)
    source = next((one for one in recommender.sources if isinstance(one, Vectors)), None)
    if source is None:
        kinds = ", ".join(one.spec.kind for one in recommender.sources)
        raise NoVectors(f"system {system} has no vectors, its sources are {kinds}: add two_tower(share=...) to its file and train again")
    catalogue, states = recommender.catalogue, StateTable.load(found.users)
    count = len(catalogue) if items else len(states)
    told = {"bundle": recommender.bundle.digest, "temperature": repr(source.temperature), "score": "user . item / temperature + prior"}
    out.parent.mkdir(parents=True, exist_ok=True)
    with typer.progressbar(length=count, label="items" if items else "users") as bar, out.open("wb") as file:
        writer = None
        for begin in range(0, max(count, 1), USERS_AT_ONCE):
            rows = range(begin, min(begin + USERS_AT_ONCE, count))
            part = _of_items(recommender, source, rows) if items else _of_users(recommender, states, rows)
            part = part.replace_schema_metadata(told)
            writer = writer or pq.ParquetWriter(file, part.schema, compression="zstd")
            writer.write_table(part)
            bar.update(len(rows))
        if writer is not None:
            writer.close()
    return count


def _of_items(recommender: Recommender, source: Vectors, rows: range) -> pa.Table:
    whole, prior = source.item_vectors()
    ids = [recommender.catalogue.item_id(row) for row in rows]
    return pa.table(
        {"item_id": pa.array(ids, pa.string()), "vector": _column(whole[rows.start : rows.stop]), "prior": prior[rows.start : rows.stop]}
    )


def _of_users(recommender: Recommender, states: StateTable, rows: range) -> pa.Table:
    made = []
    for at in rows:
        state = states[at]
        query = recommender.query(Request(state.user_id, recommender.system.answer_size, states.cut_day), state)
        made.append(np.asarray(recommender.user_side(query).vector, np.float32).ravel())
    ids = [bytes(text).decode() for text in states.user_ids[rows.start : rows.stop]]
    return pa.table({"user_id": pa.array(ids, pa.string()), "vector": _column(np.stack(made) if made else np.empty((0, 1), np.float32))})


def _column(values: Floats) -> pa.Array:
    """(n, D) as lists of one length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values, np.float32).ravel()), max(values.shape[1], 1))
