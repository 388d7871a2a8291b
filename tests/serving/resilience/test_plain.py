"""Around the ladder nothing raises: each part that fails leaves a full list that nothing barred is in, and is counted."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serving.exposures.log import ExposureLog
from serving.query import Answer, Request
from serving.recommender import Recommender
from serving.resilience.cache import Caches
from serving.resilience.ladder import BARS_ONLY, UNARRANGED, Ladder
from serving.resilience.plain import Plain
from serving.state.user_state import UserState
from tests.serving.resilience.test_breaker import Clock
from tests.serving.tiny_bundle import DAY, load_tiny, states, system

STATES = states()


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("planted")


@pytest.fixture
def ladder(tmp_path: Path):  # type: ignore[no-untyped-def]
    recommender = Recommender(load_tiny(tmp_path / "bundle"), system())
    counted: Counter[str] = Counter()
    exposures = ExposureLog(tmp_path / "log")
    plain = Plain(lambda part: counted.update([part]))
    made = Ladder(recommender, caches=Caches(recommender.bundle.digest, Clock()), exposures=exposures, clock=Clock(), plain=plain)
    made.counted = counted  # type: ignore[attr-defined]
    yield made
    exposures.close()


def ask(ladder: Ladder, user: int = 3, state: UserState | None = None, **more: object) -> Answer:
    found = STATES[user] if state is None else state
    return ladder.answer(Request(found.user_id, 10, DAY, "r", **more), found)  # type: ignore[arg-type]


def breaks(part: str) -> Callable[[Ladder], None]:
    def reasons(ladder: Ladder) -> None:
        ladder.recommender.reasons.tell = fail  # type: ignore[method-assign,assignment]

    def arrange(ladder: Ladder) -> None:
        ladder.recommender.rules.arrange = fail  # type: ignore[method-assign,assignment]

    def exposure(ladder: Ladder) -> None:
        assert ladder.exposures is not None
        ladder.exposures.keep = fail  # type: ignore[method-assign,assignment]

    def cache(ladder: Ladder) -> None:
        assert ladder.caches is not None
        ladder.caches.pool = ladder.caches.keep_pool = ladder.caches.lists.put = fail  # type: ignore[method-assign,assignment]

    def order(ladder: Ladder) -> None:
        ladder.recommender.scoring.order = fail  # type: ignore[method-assign,assignment]

    def rung(ladder: Ladder) -> None:
        ladder.recommender.retrieve = fail  # type: ignore[method-assign,assignment]
        ladder.recommender.bundle.__dict__["fallback"] = Broken()

    return locals()[part]  # type: ignore[no-any-return]


class Broken:
    """Fallback lists that cannot be read."""

    user = popular = static = staticmethod(fail)


@pytest.mark.parametrize("part", ["reasons", "arrange", "exposure", "cache", "order"])
@pytest.mark.parametrize("discover", [False, True])
def test_each_part_that_fails_is_counted_and_leaves_a_full_list_under_the_bars(ladder: Ladder, part: str, discover: bool) -> None:
    whole = ask(ladder, discover=discover)
    breaks(part)(ladder)
    answer = ask(ladder, discover=discover)
    assert ladder.counted[part] >= 1  # type: ignore[attr-defined]
    assert set(ladder.counted) == {part}  # type: ignore[attr-defined]
    rows = np.array([item.row for item in answer.items])
    assert len(set(rows.tolist())) == 10
    assert ladder.recommender.rules.permits(rows).all()
    if discover:
        assert not np.isin(rows, ladder.recommender.query(Request("u03", 10, DAY), STATES[3]).history_rows).any()
    if part in ("reasons", "exposure", "cache"):
        assert [item.row for item in answer.items] == [item.row for item in whole.items]
    if part == "reasons":
        assert {(item.sources, item.reason) for item in answer.items} == {((), "")}
        assert answer.degraded is None


def test_a_list_that_could_not_be_arranged_says_so(ladder: Ladder) -> None:
    breaks("arrange")(ladder)
    degraded = ask(ladder).degraded
    assert degraded is not None
    assert (degraded["rung"], degraded["reason"], degraded["cost"]) == ("full", UNARRANGED, BARS_ONLY)


def test_a_barred_item_stays_barred_where_arranging_fails(ladder: Ladder) -> None:
    first = ask(ladder).items[0].row
    ladder.recommender.rules.set_policy_flags(first, 1)  # recalled
    breaks("arrange")(ladder)
    assert first not in [item.row for item in ask(ladder).items]


def test_where_every_lower_rung_fails_the_history_still_answers_by_votes(ladder: Ladder) -> None:
    breaks("rung")(ladder)
    answer = ask(ladder)
    assert len(answer.items) >= 1
    assert answer.degraded is not None
    assert answer.degraded["rung"] == "linear"
    assert ladder.counted["rung"] >= 1  # type: ignore[attr-defined]


def test_a_state_that_cannot_be_read_as_a_history_is_a_strangers(ladder: Ladder) -> None:
    torn = UserState("u03", keys=STATES[3].keys, last_day=STATES[3].last_day[:1])
    answer = ask(ladder, state=torn)
    assert len(answer.items) == 10
    assert ladder.counted["history"] == 1  # type: ignore[attr-defined]


def test_the_first_failure_of_a_part_is_told_and_every_one_is_counted() -> None:
    class Log:
        def __init__(self) -> None:
            self.lines: list[dict[str, object]] = []

        def warning(self, _: str, **fields: object) -> None:
            self.lines.append(fields)

    counted: Counter[str] = Counter()
    log = Log()
    plain = Plain(lambda part: counted.update([part]), log)
    assert [plain.run("reasons", fail, otherwise=lambda: "plain") for _ in range(3)] == ["plain"] * 3
    assert plain.run("reasons", lambda: "whole", otherwise=lambda: "plain") == "whole"
    assert (counted["reasons"], len(log.lines)) == (3, 1)
    assert "planted" in str(log.lines[0]["error"])
