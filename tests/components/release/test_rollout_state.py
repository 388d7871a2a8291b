"""The rollout's state machine: nothing skips a step, nothing breaks off half-way, and the old bundle always is a decision away."""

from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.release.rollout_state import ENDED, REVOCABLE, Placed, Rollout, RolloutPolicy, Seen, decide, placed, told, undo
from tests.components.release.simulated import NEW, OLD

POLICY = RolloutPolicy((5, 25, 50), 60.0, 100, 300.0, 30.0, 40.0, 10.0, 1000.0, 500.0)
GOOD = Seen(staged=True, ready=True, smoke="", judged=True, stable_is_new=True, crowned=True, restored=True)
seen = st.builds(
    Seen,
    staged=st.booleans(),
    ready=st.booleans(),
    percent=st.sampled_from([None, 0, 5, 25, 50]),
    smoke=st.sampled_from([None, "", "asked for A, B answered"]),
    answers=st.integers(0, 2000),
    judged=st.booleans(),
    blind=st.booleans(),
    breaches=st.sampled_from([(), (), (), ("errors: 9 of 10",)]),
    abort=st.sampled_from(["", "", "", "by hand"]),
    stable_is_new=st.booleans(),
    crowned=st.booleans(),
    restored=st.booleans(),
)
story = st.lists(st.tuples(seen, st.floats(1.0, 400.0)), max_size=60)


def begun(old: bool = True) -> Rollout:
    return Rollout("r1", NEW, OLD if old else None, 1.0, entered=1.0)


def gone(steps: list[tuple[Seen, float]], rollout: Rollout) -> list[Rollout]:
    """Every state on the way."""
    states, now = [rollout], rollout.began
    for found, seconds in steps:
        now += seconds
        states.append(decide(states[-1], found, POLICY, now))
    return states


def smooth(rollout: Rollout, ticks: int = 400, answers_a_tick: int = 20) -> list[tuple[float, Rollout]]:
    """A rollout of a good bundle, asked for every five seconds, in a cluster that does at once what it is told."""
    states, answers = [(rollout.began, rollout)], 0
    for tick in range(1, ticks):
        state, now = states[-1][1], rollout.began + 5.0 * tick
        answers += answers_a_tick if placed(state).percent else 0
        found = replace(GOOD, percent=placed(state).percent, answers=answers)
        states.append((now, decide(state, found, POLICY, now)))
    return states


def test_a_good_bundle_goes_through_every_step_and_each_takes_its_time_and_its_answers() -> None:
    states = smooth(begun())
    way = [(state.phase, state.percent) for _, state in states]
    kept = [way[0], *(after for before, after in pairwise(way) if after != before)]
    assert kept == [
        ("stage", 0), ("dark", 0), ("smoke", 0), ("canary", 5), ("canary", 25), ("canary", 50), ("promote", 0), ("warm", 0), ("done", 0),
    ]  # fmt: skip
    for percent in POLICY.steps:
        held = [now for now, state in states if state.phase == "canary" and state.percent == percent and state.held]
        assert held[-1] - held[0] >= POLICY.step_seconds - 5.0
    slow = smooth(begun(), answers_a_tick=1)
    assert sum(state.percent == 5 for _, state in slow) >= POLICY.step_requests


@given(story, st.booleans())
@settings(max_examples=100, deadline=None)
def test_whatever_is_seen(steps: list[tuple[Seen, float]], old: bool) -> None:
    states = gone(steps, begun(old))
    for (found, _), (before, after) in zip(steps, pairwise(states), strict=True):
        if before.phase in ENDED:
            assert after == before
            continue
        bad = found.abort or found.breaches
        if before.phase in REVOCABLE and bad:
            assert after.phase == "withdraw"
            assert after.reason == (found.abort or "; ".join(found.breaches))
        if placed(after).percent > placed(before).percent:  # one step up, and only where the last one held
            assert placed(after).percent == min(p for p in POLICY.steps if p > placed(before).percent)
            assert before.phase == "smoke" or (before.held and found.answers - before.answers_before >= POLICY.step_requests)
        if placed(after).stable == NEW and placed(before).stable != NEW:
            assert before.percent == POLICY.steps[-1] or not old
            assert not bad
        assert placed(after).percent in (0, *POLICY.steps)
        assert after.phase != "refused" or (before.phase == "withdraw" and found.restored and found.percent == 0)
        assert msgspec.json.decode(msgspec.json.encode(after), type=Rollout) == after
        assert told(after)


@given(story)
@settings(max_examples=50, deadline=None)
def test_told_twice_the_same_it_decides_no_more(steps: list[tuple[Seen, float]]) -> None:
    """A controller that dies after it wrote the state down, and its successor sees the same at the same moment: at most the next phase
    begins, never a step's share without its time."""
    now, state = 1.0, begun()
    for found, seconds in steps:
        now += seconds
        state = decide(state, found, POLICY, now)
        again = decide(state, found, POLICY, now)
        assert placed(again).percent <= max(placed(state).percent, POLICY.steps[0])


@pytest.mark.parametrize("percent", POLICY.steps)
@pytest.mark.parametrize(
    "found", [Seen(breaches=("errors: 9 of 10",)), Seen(abort="by hand"), Seen(blind=True)], ids=["breach", "abort", "blind"]
)
def test_a_breach_at_any_step_leads_back_to_the_old_bundle_by_0_percent(percent: int, found: Seen) -> None:
    state = Rollout("r1", NEW, OLD, 1.0, "canary", percent, 2.0, held=3.0)
    states = gone([(found, 10.0), (found, POLICY.blind_seconds)], state)  # nobody is blind before two looks
    assert states[-1].phase == "withdraw"
    assert placed(states[-1]) == Placed(OLD, NEW, 0)  # its pods go on until everybody has left them
    still = Seen(percent=percent, restored=True)
    assert gone([(still, 10.0)] * 9, states[-1])[-1].phase == "withdraw"
    left = Seen(percent=0, restored=True)
    ended = gone([(left, 1.0), (left, 1.0), (left, POLICY.drain_seconds)], states[-1])
    assert [one.phase for one in ended] == ["withdraw", "withdraw", "withdraw", "refused"]
    assert placed(ended[-1]) == Placed(OLD)
    assert gone([(Seen(percent=0), 99.0)] * 3, states[-1])[-1].phase == "withdraw"  # the alias is not restored yet


@pytest.mark.parametrize(
    ("phase", "limit", "reason"),
    [
        ("stage", POLICY.ready_seconds, "could not be staged"),
        ("dark", POLICY.ready_seconds, "not ready"),
        ("smoke", POLICY.smoke_seconds, "B answered"),
        ("canary", POLICY.ready_seconds, "5 % were not taken up"),
    ],
)
def test_what_never_happens_ends_in_time(phase: str, limit: float, reason: str) -> None:
    state = Rollout("r1", NEW, OLD, 0.0, phase, 5 if phase == "canary" else 0)  # type: ignore[arg-type]
    found = Seen(smoke="asked for A, B answered")
    assert decide(state, found, POLICY, limit - 1).phase == phase
    ended = decide(state, found, POLICY, limit)
    assert ended.phase == "withdraw"
    assert reason in ended.reason
    assert placed(ended) == (Placed(OLD) if phase == "stage" else Placed(OLD, NEW))  # no pod fetches what was never proven


def test_a_step_that_is_lost_counts_from_the_beginning() -> None:
    held = Rollout("r1", NEW, OLD, 0.0, "canary", 25, 0.0, held=10.0, answers_before=5)
    lost = decide(held, replace(GOOD, percent=0, answers=900), POLICY, 65.0)
    assert (lost.phase, lost.percent, lost.held) == ("canary", 25, 0.0)
    back = decide(lost, replace(GOOD, percent=25, answers=950), POLICY, 80.0)
    assert (back.held, back.answers_before) == (80.0, 950)


def test_paused_it_goes_no_further_but_back() -> None:
    state = Rollout("r1", NEW, OLD, 0.0, "canary", 5, 0.0, held=1.0, paused=True)
    assert decide(state, replace(GOOD, percent=5, answers=10**6), POLICY, 10**6) == state
    assert decide(state, Seen(breaches=("errors",)), POLICY, 5.0).phase == "withdraw"


def test_the_last_step_waits_for_clicks_but_not_for_ever() -> None:
    state = Rollout("r1", NEW, OLD, 0.0, "canary", 50, 0.0, held=1.0)
    found = replace(GOOD, percent=50, answers=10**6, judged=False)
    assert decide(state, found, POLICY, POLICY.judge_seconds).phase == "canary"
    assert decide(state, found, POLICY, POLICY.judge_seconds + 1).phase == "promote"


def test_the_first_bundle_of_all_is_promoted_at_once_and_leaves_nothing_warm() -> None:
    states = smooth(begun(old=False), 8)
    assert [state.phase for _, state in states][:4] == ["stage", "promote", "done", "done"]


def test_a_promotion_is_undone_while_the_old_bundle_is_warm_and_only_then() -> None:
    warm = Rollout("r1", NEW, OLD, 0.0, "warm", 0, 0.0)
    back = undo(warm, 5.0)
    assert placed(back) == Placed(OLD, NEW, 0)
    assert (back.phase, back.new, back.old) == ("promote", OLD, NEW)
    for phase in ("canary", "done", "refused"):
        with pytest.raises(ValueError, match="only within the grace time"):
            undo(msgspec.structs.replace(warm, phase=phase), 5.0)
