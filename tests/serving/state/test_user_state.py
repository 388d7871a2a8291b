"""A state says again the bytes it was read from, and a changed one says its own; a table knows whom it holds."""

from dataclasses import replace

import numpy as np
import pytest

from serving.state.user_state import StateTable, UserState
from tests.serving.tiny_bundle import DAY, states

STATES = states()


def test_a_state_packs_to_the_bytes_it_was_read_from() -> None:
    packed = STATES[3].pack()
    assert UserState.unpack(packed).pack() is packed


@pytest.mark.parametrize("change", ["event", "purchase", "id"])
def test_a_changed_state_never_packs_to_the_old_bytes(change: str) -> None:
    state = UserState.unpack(STATES[3].pack())
    changed = {
        "event": lambda: state.with_session_event(5, "click", DAY),
        "purchase": lambda: state.with_positive(5, DAY),
        "id": lambda: replace(state, user_id=""),
    }[change]()
    assert changed.pack() != state.pack()
    again = UserState.unpack(changed.pack())
    assert (again.user_id, again.updated_day) == (changed.user_id, changed.updated_day)
    assert np.array_equal(again.session_keys, changed.session_keys)


def test_a_table_finds_its_users_and_nobody_else() -> None:
    names = ["a", "bb", "ccc", "é"]
    none = {"keys": "u8", "first_day": "f8", "last_day": "f8", "counts": "f4"}
    table = StateTable(
        user_ids=np.sort(np.array([name.encode() for name in names])), ends=np.zeros(4, np.int64),
        **{name: np.empty(0, dtype) for name, dtype in none.items()},
        decayed=np.empty((0, 4), np.float32), features=np.empty((4, 0), np.float32), place=np.full(4, b""), region=np.full(4, b""),
        consent=np.full(4, b"full"), created_day=np.zeros(4), feature_names=(), cut_day=DAY,
    )  # fmt: skip
    assert [table[table.index(name)].user_id for name in names] == names
    assert [table.index(name) for name in ("", "b", "bbb", "cccc", "a" * 256, "é" * 2, "z")] == [-1] * 7
