"""One answer as the exposure log keeps it: what explains it and makes it again.

Scores and features are not kept: the bundle makes them again from the state. Shapes: C candidates.
"""

from dataclasses import replace

import msgspec
import numpy as np

from serving.query import Answer, Answered, Request
from serving.rules.slate import Move


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer. Arrays are little-endian bytes of int32 rows."""

    request: Request
    state: bytes  # serving.state.user_state.UserState.pack()
    bundle: str
    rung: str
    items: tuple[Answered, ...]
    pool_day: float = 0.0  # the moment the pool was made for
    side_day: float = 0.0  # the moment the user's side of the models was made for
    pool: bytes = b""  # (C,) rows
    base: bytes = b""  # rows of the list a lower rung started from
    moves: tuple[Move, ...] = ()
    degraded: dict[str, str] | None = None
    arm: str | None = None
    took_ms: float = 0.0


def record_of(answer: Answer) -> Record:
    """What is kept of an answer. Raises `ValueError` for an answer without its trace."""
    trace = answer.trace
    if trace is None:
        raise ValueError(f"answer {answer.request_id} has no trace: only answers of this process's recommender are logged")
    request, state = trace.query.request, trace.query.state
    if state.consent == "minimal":
        request, state = msgspec.structs.replace(request, user_id=""), replace(state, user_id="")
    return Record(
        request,
        state.pack(),
        answer.bundle,
        trace.rung,
        answer.items,
        trace.pool_day,
        trace.side_day,
        b"" if trace.candidates is None else np.asarray(trace.candidates.rows, "<i4").tobytes(),
        b"" if trace.base is None else np.asarray(trace.base, "<i4").tobytes(),
        trace.moves,
        answer.degraded,
        answer.arm,
        answer.took_ms,
    )
