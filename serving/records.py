"""One answer as the exposure log keeps it: what explains it and makes it again.

Shapes: C candidates, K kept by the light ranker, S sources.
"""

from dataclasses import replace

import msgspec
import numpy as np

from serving.query import Answer, Request

_NONE = 65535  # rank of an item that the source did not return


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One item as it was shown."""

    row: int
    item_id: str
    score: float
    sources: tuple[str, ...]
    reason: str


class Moved(msgspec.Struct, frozen=True, array_like=True):
    """`serving.arrange.Move`, on disk."""

    rule: str
    what: str
    rows: list[int]
    why: str


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer. Arrays are little-endian bytes: int32 rows, uint16 ranks (65535: not returned), float32 scores."""

    request: dict[str, str | float | int | bool]  # fields of serving.query.Request
    state: bytes  # serving.state.UserState.pack()
    bundle: str
    rung: str
    items: list[Entry]
    pool_day: float = 0.0  # the moment the pool was made for
    side_day: float = 0.0  # the moment the user's side of the models was made for
    pool: bytes = b""  # (C,) rows
    kept: bytes = b""  # (K,) rows, best light score first
    ranks: bytes = b""  # (K, S)
    light: bytes = b""  # (K,)
    heavy: bytes = b""  # (K,); empty: the light ranker alone
    base: bytes = b""  # rows of the list a lower rung started from
    moves: list[Moved] = []
    degraded: dict[str, str] | None = None
    arm: str | None = None
    took_ms: float = 0.0

    def asked(self) -> Request:
        return Request(**self.request)  # type: ignore[arg-type]


def record_of(answer: Answer) -> Record:
    """What is kept of an answer. Raises `ValueError` for an answer without its trace."""
    trace = answer.trace
    if trace is None:
        raise ValueError(f"answer {answer.request_id} has no trace: only answers of this process's recommender are logged")
    request, state = trace.query.request, trace.query.state
    if state.consent == "minimal":
        request, state = replace(request, user_id=""), replace(state, user_id="")
    arrays = {"base": np.asarray(trace.base, "<i4").tobytes()} if trace.base is not None else {}
    if trace.candidates is not None:
        arrays["pool"] = np.asarray(trace.candidates.rows, "<i4").tobytes()
    if trace.scores is not None and trace.candidates is not None:
        kept = trace.candidates.take(trace.scores.kept)
        ranks = np.where(np.isfinite(kept.source_ranks), kept.source_ranks, _NONE)
        arrays |= {
            "kept": np.asarray(kept.rows, "<i4").tobytes(),
            "ranks": ranks.astype("<u2").tobytes(),
            "light": np.asarray(trace.scores.light[trace.scores.kept], "<f4").tobytes(),
            "heavy": np.asarray(trace.scores.heavy, "<f4").tobytes() if trace.scores.heavy is not None else b"",
        }
    return Record(
        request={name: getattr(request, name) for name in request.__dataclass_fields__},
        state=state.pack(),
        bundle=answer.bundle,
        rung=trace.rung,
        items=[Entry(item.row, item.item_id, item.score, item.sources, item.reason) for item in answer.items],
        pool_day=trace.pool_day,
        side_day=trace.side_day,
        moves=[Moved(move.rule, move.what, list(move.rows), move.why) for move in trace.moves],
        degraded=answer.degraded,
        arm=answer.arm,
        took_ms=answer.took_ms,
        **arrays,
    )
