"""V-SKNN against the formula written out in plain Python, over any sessions; and what a session is, from a state."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.retrieval.sessions import table
from serving.bundle.catalogue import item_key
from serving.native import kernel
from serving.query import Query, Request
from serving.retrieval.sessions import Sessions, sessions
from serving.state.user_state import UserState
from serving.system import Learning
from tests.serving import tiny_bundle
from tests.serving.tiny_bundle import DAY

ITEMS = 12
PAST = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=6, unique=True), min_size=1, max_size=14)
PRESENT = st.lists(st.integers(0, ITEMS - 1), max_size=6, unique=True)


def source(past: list[list[int]], recent: int = 1000, neighbours: int = 100, items: int = ITEMS) -> Sessions:
    """Session n of `past` ended on day n, its items an hour apart."""
    entries = [(n, item, n + at / 24) for n, session in enumerate(past) for at, item in enumerate(session)]
    of, rows, days = zip(*entries, strict=True)
    spec = sessions(share=1.0, recent=recent, neighbours=neighbours)
    return Sessions(spec, table(np.array(of), np.array(rows, np.int32), np.array(days), items, 1.0))


def slowly(past: list[list[int]], present: list[int], recent: int, neighbours: int) -> dict[int, float]:
    """The formula: sessions of one item say nothing of what goes together and are left out."""
    known = {n: session for n, session in enumerate(past) if len(session) > 1}
    sharing = sorted((n for n, session in known.items() if set(session) & set(present)), reverse=True)[:recent]
    weight = {item: (p + 1) / len(present) for p, item in enumerate(present)}
    likeness = {n: sum(weight[item] for item in present if item in known[n]) for n in sharing}
    scores: dict[int, float] = {}
    for n in sorted(sharing, key=lambda n: (-round(likeness[n], 9), -n))[:neighbours]:
        step = next(at + 1 for at, item in enumerate(reversed(present)) if item in known[n])
        for item in set(known[n]) - set(present):
            scores[item] = scores.get(item, 0.0) + likeness[n] / len(present) / step
    return scores


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PAST, PRESENT, st.sampled_from([2, 5, 1000]), st.sampled_from([1, 3, 100]))
def test_scores_are_the_formulas(past: list[list[int]], present: list[int], recent: int, neighbours: int) -> None:
    rows, scores = source(past, recent, neighbours).scored(np.array(present, np.int32))
    expected = slowly(past, present, recent, neighbours)
    assert rows.tolist() == sorted(expected)
    assert np.allclose(scores, [expected[row] for row in rows.tolist()], atol=1e-6)


def asked(state: UserState, **more: object) -> Query:
    return Query(Request(state.user_id, 10, DAY, **more), state, tiny_bundle.catalogue(), Learning())  # type: ignore[arg-type]


def test_a_session_is_what_it_had_today_and_then_what_it_looked_at() -> None:
    state = UserState("\x1fs1")
    for number, age in ((5, 0.2), (9, 0.1), (7, 3.0)):
        state = state.with_positive(item_key(f"i{number:03}"), DAY - age)
    state = state.with_session_event(item_key("i005"), "click", DAY - 0.01)
    made = source([[5, 9, 3], [9, 5], [3, 9, 4]], items=tiny_bundle.ITEMS)
    assert made.present(asked(state)).tolist() == [9, 5]  # of i005 the last place counts; i007 was days ago
    hits = made.retrieve(asked(state), 5)
    assert hits.rows.tolist() == [3, 4]
    assert made.retrieve(asked(state, leave_out=("i003",)), 5).rows.tolist() == [4]
    assert made.reason(asked(state), 4) == "Often chose with Thing 9"
    assert made.reason(asked(state), 100) == ""
    assert len(made.retrieve(asked(UserState("nobody")), 5).rows) == 0


def test_it_is_the_same_without_the_compiled_loops() -> None:
    made = source([[n % ITEMS, (n * 5 + 1) % ITEMS, (n * 7 + 3) % ITEMS] for n in range(40)], neighbours=7)
    native = made.scored(np.array([1, 4, 8], np.int32))
    compiled = kernel.native()
    kernel.use(False)
    try:
        assert all(map(np.array_equal, native, made.scored(np.array([1, 4, 8], np.int32))))
    finally:
        kernel.use(compiled)


def test_of_too_many_sessions_the_latest_stay(monkeypatch: object) -> None:
    import components.retrieval.sessions as fitted

    monkeypatch.setattr(fitted, "MOST", 2)  # type: ignore[attr-defined]
    made = source([[1, 2], [1, 3], [4], [1, 5]])
    assert made.scored(np.array([1], np.int32))[0].tolist() == [3, 5]
    assert replace(made.table).ends.tolist() == [2, 4]
