"""New arrivals: what a new item will find is told from what new items like it found, and who will like it from what it is."""

from pathlib import Path

import numpy as np
import pytest

from components.cut import Cut
from components.retrieval import arrivals as twin
from serving.bundle.catalogue import Catalogue
from serving.retrieval.arrivals import POWER, Arrivals, arrivals
from serving.retrieval.interest import counts
from serving.state.user_state import UserState
from tests.components.retrieval.worlds import CUT_DAY, Event, catalogue, cut, query

SPEC = arrivals(share=1)
KINDS = {"a": 1, "b": 2}
# "a?" are of kind 1, "b?" of kind 2; the nines and eights are never sold, a7 was first had three days before the cut, the others long ago
NAMES = ["a0", "a1", "a7", "a8", "a9", "b0", "b1", "b8", "b9"]
OLD: list[Event] = [(user, f"{user[0]}{nth}", 10.0 + nth) for user in ("a-one", "a-two", "b-one", "b-two") for nth in (0, 1)]
LATELY: list[Event] = [("a-two", "a7", CUT_DAY - 3)]


def items(names: list[str] = NAMES, **more: object) -> Catalogue:
    kind = np.array([KINDS[name[0]] for name in sorted(names)])
    return catalogue(names, category=np.column_stack((kind, kind, kind)), created_day=np.full(len(names), np.nan), **more)


def fitted(world: Cut, folder: Path) -> Arrivals:
    twin.fit(world, SPEC, folder)
    return Arrivals.load(folder, SPEC, world.catalogue)


def names(source: Arrivals, state: UserState, n: int = 9, **asked: object) -> list[str]:
    hits = source.retrieve(query(state, source.catalogue, **asked), n)
    assert (np.diff(hits.scores) <= 0).all()
    assert np.array_equal(hits.scores_of(hits.rows), hits.scores)
    return [source.catalogue.item_id(row) for row in hits.rows]


def preferred(source: Arrivals, state: UserState, one: str, other: str) -> float:
    """How many times the score of another item an item has."""
    rows = np.array([source.catalogue.row_of(name) for name in (one, other)], np.int32)
    first, second = source.retrieve(query(state, source.catalogue), 9).scores_of(rows)
    return float(first / second)


@pytest.fixture
def world() -> Cut:
    return cut([*OLD, *LATELY], items())


def test_only_what_is_new_comes_and_first_what_the_user_goes_for(world: Cut, tmp_path: Path) -> None:
    source = fitted(world, tmp_path)
    assert set(names(source, world.users[0])) == {"a7", "a8", "a9", "b8", "b9"}  # a-one
    usual = preferred(source, UserState("nobody"), "a9", "b9")
    assert preferred(source, world.users[0], "a9", "b9") > usual > preferred(source, world.users[2], "a9", "b9")  # a-one, b-one


def test_what_the_user_had_or_did_not_ask_for_is_left_out(world: Cut, tmp_path: Path) -> None:
    source = fitted(world, tmp_path)
    assert set(names(source, world.users[1])) == {"a8", "a9", "b8", "b9"}  # a-two had a7
    assert set(names(source, world.users[0], leave_out=("a8",))) == {"a7", "a9", "b8", "b9"}


def test_who_is_unknown_gets_what_finds_most(world: Cut, tmp_path: Path) -> None:
    source = fitted(world, tmp_path)
    hits = source.retrieve(query(UserState("nobody"), world.catalogue), 9)
    assert hits.scores == pytest.approx(np.sort(source.found)[::-1])  # every lift is 1


def test_a_lift_is_the_formula_of_the_module(world: Cut, tmp_path: Path) -> None:
    source, asked = fitted(world, tmp_path), query(world.users[0], world.catalogue)
    had = float(counts(asked, source.debuts.tau_days).sum())  # all of kind 1, which is half of what everybody had
    prior, everyone = source.debuts.prior_counts, cut_counts(world, source.debuts.tau_days)
    share = everyone[1] / everyone.sum()
    found = source.retrieve(asked, 9)
    for name, own in (("a9", had / share), ("b9", 0.0)):
        row = world.catalogue.row_of(name)
        lift = ((own + prior) / (had + prior)) ** (3 * POWER) * ((had + prior) / (had + prior)) ** POWER  # three levels; one band of prices
        expected = source.found[source.debuts.rows.tolist().index(row)] * lift
        assert found.scores_of(np.array([row], np.int32))[0] == pytest.approx(expected, rel=1e-5)


def cut_counts(world: Cut, tau_days: float) -> np.ndarray:
    """What everybody had of each kind."""
    return np.bincount(world.catalogue.category[world.history.row, 0], world.history.decay(tau_days))


def growing(names: list[str]) -> Cut:
    """Of each of `names` but the last of its kind, a user more had the first one day after the other in the last weeks."""
    events = [(f"u{nth % 4}", name, CUT_DAY - 20 + nth) for nth, name in enumerate(names)]
    return cut([*OLD, *events], items(sorted({*NAMES, *names, *(f"b{nth}" for nth in range(20, 60))})))


def test_more_is_expected_of_a_kind_whose_new_items_found_users(tmp_path: Path) -> None:
    world = growing([f"a{nth}" for nth in range(20, 38)])  # eighteen of kind 1 found somebody, none of forty of kind 2
    source = fitted(world, tmp_path)
    found = dict(zip(source.debuts.rows.tolist(), source.found.tolist(), strict=True))
    assert found[world.catalogue.row_of("a9")] > 3 * found[world.catalogue.row_of("b9")]


def test_an_item_posted_a_moment_ago_joins_at_once_by_what_it_is(tmp_path: Path) -> None:
    world = growing([f"a{nth}" for nth in range(20, 38)])
    source = fitted(world, tmp_path)
    more = sorted({*(item.decode() for item in world.catalogue.item_ids.tolist())})
    kinds = [*(KINDS[name[0]] for name in more), 1, 2, 9]  # z1 of kind 1, z2 of kind 2, z3 of one that the release does not know
    larger = catalogue(
        [*more, "z1", "z2", "z3"],
        category=np.repeat(np.array(kinds)[:, None], 3, axis=1),
        created_day=np.append(world.catalogue.created_day, np.full(3, CUT_DAY)),
    )
    grown = source.with_new_items(larger, None)
    ranked = names(grown, UserState("nobody"), n=200)
    assert ranked.index("z1") < ranked.index("z2")
    assert "z3" in ranked
    b_one, nobody = world.users[2], UserState("nobody")
    assert preferred(grown, b_one, "z2", "z1") > preferred(grown, nobody, "z2", "z1")
    assert "z1" not in names(source, UserState("nobody"), n=200)


def test_items_listed_next_to_what_sells_for_the_first_time_are_expected_to(tmp_path: Path) -> None:
    # ids count up: 1000 and on are listed lately, and every second one was had for the first time in the last weeks
    numbers = [str(number) for number in (*range(600), *range(1000, 1100))]
    debuts = [(f"u{nth % 7}", str(1000 + 2 * nth), CUT_DAY - 25 + nth / 2) for nth in range(50)]
    once = [(f"u{nth % 7}", str(nth), 5.0) for nth in range(0, 600, 9)]
    world = cut([*once, *debuts], catalogue(numbers, created_day=np.full(len(numbers), np.nan)))
    source = fitted(world, tmp_path)
    ranked = names(source, UserState("nobody"), n=1000)
    never = [name for name in ranked if name not in {name for _, name, _ in debuts}]
    assert set(never[:40]) <= {str(number) for number in range(900, 1100)}


def test_ids_that_are_no_numbers_say_nothing_of_when_they_were_listed() -> None:
    assert not len(twin.listing(catalogue(["10", "9", "x"])))
    nine, ten, two = (catalogue(["10", "9", "2"]).row_of(name) for name in ("9", "10", "2"))
    assert twin.listing(catalogue(["10", "9", "2"])).tolist() == [two, nine, ten]  # by number, not by text


def test_what_is_planned_anywhere_is_expected_to_find_more(tmp_path: Path) -> None:
    plan = np.zeros((1, 2, len(NAMES)), np.uint8)
    plan[0, 1, sorted(NAMES).index("b9")] = 1
    world = cut([*OLD, *LATELY], items(places=("p0", "p1"), plan_display=plan, plan_mailer=np.zeros_like(plan)))
    source = fitted(world, tmp_path)
    hits = source.retrieve(query(UserState("nobody"), world.catalogue), 9)
    b8, b9 = hits.scores_of(np.array([world.catalogue.row_of(name) for name in ("b8", "b9")], np.int32))
    assert b9 == pytest.approx(2.2 * b8, rel=1e-5)


def test_the_sum_of_what_is_expected_is_what_was_found() -> None:
    """The score equation of Poisson regression for its base, the slow obvious reference of a fit."""
    times = twin.FirstTimes.of(growing([f"a{nth}" for nth in range(20, 38)]), np.empty(0, np.float32), 14.0)
    at = CUT_DAY - 7
    weights, base = twin.learnt(times, [at])
    new = times.first >= at - 14
    expected = np.exp(base + times.features(at)[0][new] @ weights)
    assert expected.sum() == pytest.approx(times.users(at, at + 7)[new].sum(), rel=1e-3)


@pytest.mark.parametrize(
    "events",
    [
        [("u", "a0", 1.0)],  # one user, one item, no debut for months
        [("u", name, CUT_DAY - 1) for name in NAMES],  # everything for the first time yesterday
        [("u", name, 1.0) for name in NAMES],  # nothing is new
    ],
)
def test_odd_worlds_give_finite_numbers(events: list[Event], tmp_path: Path) -> None:
    source = fitted(cut(events, items()), tmp_path)
    hits = source.retrieve(query(UserState("nobody"), source.catalogue), 9)
    assert np.isfinite(hits.scores).all()
    new = [name for name in NAMES if not any(item == name and day < CUT_DAY - 14 for _, item, day in events)]
    assert sorted(names(source, UserState("nobody"))) == sorted(new)


def test_its_sentence_says_that_it_is_new_and_why_this_user(world: Cut, tmp_path: Path) -> None:
    source = fitted(world, tmp_path)
    asked, row = query(world.users[0], world.catalogue), world.catalogue.row_of("a9")
    assert source.reason(asked, row) == "New, like what you usually choose in Kind 1"
    assert source.reason(query(UserState("nobody"), world.catalogue), row) == "New in Kind 1"
