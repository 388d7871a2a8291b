"""Events into states: what each does is what it means to the system (`serving/event_meanings.py`)."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from serving.bundle.catalogue import item_key
from serving.event_meanings import Again, Follow, Ignored, Negative, Never, Positive, Shown, Signal, type_code
from serving.state.store import StateEvent
from serving.state.user_state import AGAIN, FOLLOWED, LESS, NEVER, UserState
from serving.system import Learning

RECENT = np.dtype([("id", "S16"), ("key", "<u8"), ("day", "<f8"), ("type", "<u4"), ("value", "<f4")])  # one event since the cut
SAID = {Again: AGAIN, Never: NEVER, Negative: LESS, Follow: FOLLOWED}


class Fold:
    """What the events of one system do to a state. `told`: the types that do anything."""

    def __init__(self, learning: Learning) -> None:
        self.told = {name: meaning for name, meaning in learning.meanings.items() if not isinstance(meaning, (Shown, Ignored))}
        self._meaning = {type_code(name): meaning for name, meaning in self.told.items()}

    def of(self, state: UserState, events: Iterable[StateEvent]) -> UserState:
        """The state after these events."""
        return self.folded(state, fresh(np.empty(0, RECENT), [event for event in events if event.kind in self.told]), -np.inf)

    def folded(self, state: UserState, rows: NDArray[np.void], since_day: float) -> UserState:
        """The state after those RECENT rows that are not of before `since_day`."""
        by_kind: dict[type, list[tuple[int, float, float]]] = {}
        for key, day, code, value in rows[rows["day"] >= since_day][["key", "day", "type", "value"]].tolist():
            meaning = self._meaning.get(code)
            if isinstance(meaning, Positive):
                weight = meaning.worth.of(value)
                if weight:
                    by_kind.setdefault(Positive, []).append((key, day, weight))
                elif meaning.disappoints(value):
                    by_kind.setdefault(Never, []).append((key, day, SAID[type(meaning.below)]))
            elif isinstance(meaning, Signal):
                by_kind.setdefault(Signal, []).append((key, day, code))
            elif meaning is not None:
                by_kind.setdefault(Never, []).append((key, day, SAID[type(meaning)]))
        liked, hinted, said = (_columns(by_kind.get(kind, [])) for kind in (Positive, Signal, Never))
        state = state.with_positives(liked[0], liked[1], liked[2].astype(np.float32))
        state = state.with_session_events(hinted[0], hinted[2].astype(np.uint32), hinted[1])
        return state.with_said(said[0], said[2].astype(np.uint8), said[1])


def _columns(rows: list[tuple[int, float, float]]) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
    keys, days, rest = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(keys, np.uint64), np.array(days, np.float64), np.array(rest, np.float64)


def fresh(had: NDArray[np.void], events: Sequence[StateEvent]) -> NDArray[np.void]:
    """The events not yet among `had`, as RECENT rows, each id once."""
    rows: dict[bytes, tuple[bytes, int, float, int, float]] = {}
    for event in events:
        name = blake2b(event.event_id.encode(), digest_size=8).hexdigest().encode()
        rows.setdefault(name, (name, item_key(event.item_id), event.day, type_code(event.kind), event.value))
    known = set(had["id"].tolist())
    return np.array([row for name, row in rows.items() if name not in known], RECENT)
