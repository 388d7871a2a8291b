"""Each rule alone on a few items, its list and what it tells worked out by hand. `test_arrange.py` holds them together against references.

Of the tiny catalogue: item n is of category n % 12 and brand n % 7 (0 unknown), and new (10 days old) where n % 10 is 9; 237 is recalled,
238 out of stock, 239 blocked.
"""

import numpy as np
import pytest

from feature_repo.schema import POLICY_FLAGS
from serving.native import kernel
from serving.query import Request
from serving.rules.arrange import Rules
from serving.rules.bars import SAFETY, Bars, Filters
from serving.rules.diversity import marginal_order
from serving.rules.newer import Newer
from serving.rules.page import Capped, exchange, fill_page, fits
from serving.rules.rule import BadRule, Bar, Filter
from serving.rules.slate import Arranged, Move, Ranked
from serving.rules.specs import (
    RULES,
    Boost,
    allowed,
    at_least,
    at_most,
    boost,
    diverse,
    exposure_floor,
    in_stock,
    not_recalled,
    not_seen,
    pin,
)
from serving.system import Rule
from tests.serving.tiny_bundle import DAY, catalogue

TABLE = catalogue()
PAGE = 5


@pytest.fixture(autouse=True, params=[True, False] if kernel.native() else [False])
def loops(request: pytest.FixtureRequest) -> object:
    """By the compiled walk where there is one, and by numpy."""
    native = kernel.native()
    kernel.use(native and request.param)
    yield
    kernel.use(native)


def ranked(*rows: int, seen: tuple[int, ...] = (), scores: list[float] | None = None) -> Ranked:
    """Rows with scores 1, .9, .8 …, those named in `seen` had before."""
    told = np.array([1 - n / 10 for n in range(len(rows))] if scores is None else scores, np.float32)
    return Ranked(np.array(rows, np.int32), told, np.isin(rows, seen))


def arranged(listed: Ranked, *rules: Rule, k: int = PAGE, day: float = DAY, hidden: tuple[int, ...] = (), **asked: object) -> Arranged:
    request = Request("", k, day, **asked)  # type: ignore[arg-type]
    return Rules(rules, TABLE, PAGE).arrange(listed, request, np.array(hidden, np.int32))


def rows_and_moves(found: Arranged) -> tuple[list[int], list[Move]]:
    return found.rows.tolist(), list(found.moves)


def test_without_rules_a_list_is_its_beginning_and_tells_nothing() -> None:
    found = arranged(ranked(*range(1, 9)))
    assert rows_and_moves(found) == ([1, 2, 3, 4, 5], [])
    assert found.scores.tolist() == pytest.approx([1, 0.9, 0.8, 0.7, 0.6])
    assert rows_and_moves(arranged(ranked(1, 2), k=3)) == ([1, 2], [])
    assert rows_and_moves(arranged(ranked(*range(1, 9)), k=7)) == ([1, 2, 3, 4, 5, 6, 7], [])


def test_each_bar_removes_what_carries_its_flag_and_nothing_else() -> None:
    listed = ranked(1, 237, 238, 239, 2)
    told = [("not_recalled", 237, not_recalled()), ("in_stock", 238, in_stock()), ("allowed", 239, allowed(flag="blocked"))]
    for kind, gone, one in told:
        assert rows_and_moves(arranged(listed, one)) == (
            [row for row in (1, 237, 238, 239, 2) if row != gone],
            [Move(kind, "removed", (gone,), "carries the flag")],
        )
    assert arranged(listed, *(one for *_, one in told)).rows.tolist() == [1, 2]


def test_what_a_safety_message_names_is_in_no_list_whatever_rules_there_are_and_says_so() -> None:
    rules = Rules((), TABLE, PAGE)
    assert (rules.hard_bits, rules.flags[3]) == (SAFETY, 0)
    rules.flags[3] |= SAFETY
    assert rows_and_moves(rules.arrange(ranked(3, 4), Request("", 2, DAY))) == (
        [4], [Move("safety", "removed", (3,), "was recalled, blocked or hidden")],
    )  # fmt: skip
    rules.set_policy_flags(3, 1)
    assert rules.flags[3] == SAFETY | 1  # what is no policy flag holds as before
    rules.set_policy_flags(4, 2)
    rules.set_policy_flags(4, 0)
    assert rules.flags[4] == 0
    assert rules.permits(np.array([3, 4])).tolist() == [False, True]


class Odd(Bar):
    """Never an odd item."""

    def bars(self, catalogue):  # type: ignore[no-untyped-def]
        return np.arange(len(catalogue)) % 2 == 1


class Third(Filter):
    """Leaves out every third."""

    def removes(self, ranked, request):  # type: ignore[no-untyped-def]
        return ranked.rows % 3 == 0


def test_bars_and_filters_of_ones_own_have_bits_and_words() -> None:
    assert rows_and_moves(arranged(ranked(2, 3, 4), Odd())) == ([2, 4], [Move(Odd().kind, "removed", (3,), "is barred")])
    made = Bars([not_recalled(), *(Odd() for _ in range(3))], TABLE)
    assert [bit for _, bit in made._bits] == [1, 16, 32, 64]
    assert made.bits == 1 | 16 | 32 | 64 | SAFETY
    assert made.flags[[2, 3, 237]].tolist() == [0, 112, 113]
    with pytest.raises(BadRule, match="room for 3 bars beside the policy flags"):
        Bars([Odd() for _ in range(4)], TABLE)
    found = arranged(ranked(3, 4, 6, 7, 8), Third(), k=4)
    assert rows_and_moves(found) == (
        [4, 7, 8, 3],
        [
            Move(Third().kind, "removed", (3, 6), "left out for this request"),
            Move(Third().kind, "gave way", (3,), "too few others: left out for this request"),
        ],
    )  # fmt: skip
    assert (Filters([not_seen()]).plain, Filters([Third()]).plain, Filters([]).plain) == (True, False, True)


def test_what_was_had_goes_comes_back_last_and_never_for_who_discovers() -> None:
    listed, had = ranked(1, 2, 3, 4, 5, 6, seen=(1, 3)), Move("not_seen", "removed", (1, 3), "the user has had it")
    assert rows_and_moves(arranged(listed, not_seen(), k=4)) == ([2, 4, 5, 6], [had])
    assert rows_and_moves(arranged(listed, not_seen(), k=5)) == (
        [2, 4, 5, 6, 1], [had, Move("not_seen", "gave way", (1,), "too few others: the user has had it")],
    )  # fmt: skip
    assert rows_and_moves(arranged(listed, not_seen(), k=5, discover=True)) == ([2, 4, 5, 6], [had])
    assert rows_and_moves(arranged(listed, k=5, discover=True)) == ([2, 4, 5, 6], [had])
    assert rows_and_moves(arranged(listed, k=2)) == ([1, 2], [])
    assert [one.kind for one in Filters([not_seen()]).of(Request("", 1, DAY, discover=True))] == ["not_seen"]  # once


def test_a_cap_leaves_out_the_next_of_its_group_until_too_few_fit() -> None:
    # 1, 13, 25 are of one category, 2 and 14 of another
    listed, cap = ranked(1, 13, 25, 2, 14, 3), at_most(1, per="category")
    assert rows_and_moves(arranged(listed, cap, k=3)) == (
        [1, 2, 3],
        [Move("at_most", "moved", (13, 25, 14), "more than 1 of one category")],
    )
    assert rows_and_moves(arranged(listed, cap, k=4)) == (
        [1, 2, 3, 13],
        [
            Move("at_most", "moved", (25, 14), "more than 1 of one category"),
            Move("at_most", "gave way", (13,), "too few items fit under the caps"),
        ],
    )  # fmt: skip
    assert arranged(ranked(7, 14, 21, 1), at_most(1, per="brand"), k=4).rows.tolist() == [7, 14, 21, 1]  # of no known brand: not counted


def test_of_two_caps_the_first_that_is_full_is_named() -> None:
    # 1, 13, 85 are of category 1; 1, 8, 85 of brand 1
    found = arranged(ranked(1, 13, 8, 85, 2, 3), at_most(1, per="category"), at_most(1, per="brand"), k=3)
    assert rows_and_moves(found) == (
        [1, 2, 3],
        [Move("at_most", "moved", (13, 85), "more than 1 of one category"), Move("at_most", "moved", (8,), "more than 1 of one brand")],
    )


def test_a_floor_puts_the_best_new_item_in_the_place_of_the_last_old_one() -> None:
    floor = at_least(1, newer_than_days=14)
    assert rows_and_moves(arranged(ranked(1, 2, 3, 9, 19), floor, k=3)) == (
        [1, 2, 9],
        [Move("at_least", "added", (9,), "newer than 14 days")],
    )
    assert rows_and_moves(arranged(ranked(1, 9, 3, 19), floor, k=3)) == ([1, 9, 3], [])
    assert rows_and_moves(arranged(ranked(1, 2, 3), floor, k=3)) == ([1, 2, 3], [Move("at_least", "gave way", (), "1 new items short")])
    two = at_least(2, newer_than_days=14)
    assert rows_and_moves(arranged(ranked(1, 2, 3, 9, 19), two, k=3)) == (
        [1, 9, 19],
        [Move("at_least", "added", (9, 19), "newer than 14 days")],
    )
    assert rows_and_moves(arranged(ranked(1, 2, 3, 9), two, k=3)) == (
        [1, 2, 9], [Move("at_least", "added", (9,), "newer than 14 days"), Move("at_least", "gave way", (), "1 new items short")],
    )  # fmt: skip
    assert rows_and_moves(arranged(ranked(1, 2), at_least(5, newer_than_days=14), k=2))[1][0].why == "2 new items short"
    assert arranged(ranked(1, 2, 3, 9), floor, k=3, day=DAY + 4).rows.tolist() == [1, 2, 3]  # ten days old, and four more: no longer new
    assert arranged(ranked(1, 2, 3, 9), floor, k=3, day=DAY + 3.9).rows.tolist() == [1, 2, 9]


def test_a_floor_looks_past_the_first_hundred_and_twenty_eight() -> None:
    old = [row for row in range(237) if row % 10 != 9]
    assert arranged(ranked(*old[:130], 9, 19), at_least(1, newer_than_days=14)).rows.tolist() == [0, 1, 2, 3, 9]
    same = [row for row in range(0, 237, 12) if row % 10 != 9]  # of one category: under its cap the window of the first is not enough
    listed = ranked(*same, *(row for row in old if row % 12 == 1), *range(2, 5), *(row for row in old if row % 12 > 5))
    found = arranged(listed, at_most(1, per="category"))
    assert found.rows.tolist() == [0, 1, 2, 3, 4]


def test_a_pin_stands_where_it_is_to_whatever_the_page_and_only_on_the_first() -> None:
    moved = Move("pin", "moved", (20,), "pinned at 1")
    found = arranged(ranked(1, 2, 3, 20), pin("i020", position=1), k=3)
    assert rows_and_moves(found) == ([1, 20, 2], [moved])
    found = arranged(ranked(1, 2, 3), pin("i020", position=1), k=3)  # nobody ranked it: at the lowest score
    assert rows_and_moves(found) == ([1, 20, 2], [moved])
    assert found.scores.tolist() == pytest.approx([1, 0.8, 0.9])
    assert arranged(ranked(1, 2, 3, 20), pin("i020", position=3), k=3).rows.tolist() == [1, 2, 3]
    assert arranged(ranked(*range(1, 9), 20), pin("i020", position=1), k=8).rows.tolist() == [1, 20, 2, 3, 4, 5, 6, 7]
    assert rows_and_moves(arranged(ranked(), pin("i020"), k=3)) == ([20], [Move("pin", "moved", (20,), "pinned at 0")])
    assert arranged(ranked(), pin("i020"), k=3).scores.tolist() == [0.0]
    assert arranged(ranked(1, 2, 3), pin("i020", position=1), pin("i030"), k=3).rows.tolist() == [30, 20, 1]
    assert arranged(ranked(1, 2, 3), pin("nobody's"), k=3).rows.tolist() == [1, 2, 3]
    assert arranged(ranked(1, 2, seen=(1,)), pin("i001", position=1), not_seen(), k=2).rows.tolist() == [2, 1]  # a pin outranks filters
    assert Rules([pin("i020")], TABLE, PAGE).pins
    assert not Rules([pin("nobody's"), not_seen()], TABLE, PAGE).pins


def test_what_the_user_hid_is_as_if_it_were_not_there_pinned_or_not() -> None:
    hid = Move("hidden", "removed", (2,), "the user hid it")
    assert rows_and_moves(arranged(ranked(1, 2, 3), k=2, hidden=(2,))) == ([1, 3], [hid])
    assert rows_and_moves(arranged(ranked(1, 3), k=2, hidden=(2,))) == ([1, 3], [])
    assert rows_and_moves(arranged(ranked(1, 3), pin("i002"), k=2, hidden=(2,))) == ([1, 3], [hid])
    assert rows_and_moves(arranged(ranked(1, 2, 3), pin("i020"), k=3, hidden=(2,)))[0] == [20, 1, 3]


def test_bars_alone_are_left_where_arranging_fails() -> None:
    rules = Rules([not_recalled(), at_most(1, per="category")], TABLE, PAGE)
    listed = ranked(237, 1, 13, 2, seen=(13,))
    assert rules.barred_only(listed, Request("", 3, DAY)) == Arranged(
        *(pytest.approx(x) for x in (np.array([1, 13, 2]), np.array([0.9, 0.8, 0.7]))), ()
    )
    assert rules.barred_only(listed, Request("", 2, DAY, discover=True)).rows.tolist() == [1, 2]
    assert rules.barred_only(listed, Request("", 2, DAY), np.array([1])).rows.tolist() == [13, 2]


def test_a_boost_multiplies_what_meets_all_its_conditions_and_lifts_below_zero_too() -> None:
    listed = ranked(1, 2, 3, 9, 19)
    assert arranged(listed, boost(2.0, newer_than_days=14)).rows.tolist() == [9, 19, 1, 2, 3]  # .7 and .6 doubled
    assert arranged(listed, boost(2.0, newer_than_days=14)).scores.tolist() == pytest.approx([0.7, 0.6, 1, 0.9, 0.8])  # as ranked
    assert arranged(listed, boost(2.0, newer_than_days=10)).rows.tolist() == [1, 2, 3, 9, 19]  # they are ten days old, not newer
    assert arranged(listed, boost(2.0, newer_than_days=14, brand="brand 2")).rows.tolist() == [9, 1, 2, 3, 19]  # 19 is of brand 5
    assert arranged(listed, boost(2.0, category="D > C2")).rows.tolist() == [2, 1, 3, 9, 19]
    assert arranged(listed, boost(2.0, category="D2")).rows.tolist() == [2, 1, 3, 9, 19]  # of its department: 2 alone, 2 % 3
    assert arranged(ranked(1, 2, 3, scores=[-1, -1.5, -1.6]), boost(2.0, brand="brand 2")).rows.tolist() == [2, 1, 3]  # -.75
    assert rows_and_moves(arranged(listed, boost(0.5, brand="brand 1"), k=2)) == (
        [2, 3], [Move("boost", "moved", (1,), "its score was multiplied")],
    )  # fmt: skip
    assert rows_and_moves(arranged(listed, boost(1.0), k=2)) == ([1, 2], [])


def test_diversity_trades_score_for_difference_among_the_best() -> None:
    # 1, 25, 49 share department (n % 3), category and type (n % 24); 2 shares nothing. Worth (1 - s) x spread score - s x likeness
    listed = ranked(1, 25, 49, 2)
    assert arranged(listed, diverse(0.0), k=2).rows.tolist() == [1, 25]
    assert rows_and_moves(arranged(listed, diverse(0.9), k=2)) == ([1, 2], [Move("diverse", "moved", (25,), "too like a better one")])
    assert arranged(listed, diverse(0.9, among=3), k=2).rows.tolist() == [1, 25]  # 2 is not among the first three
    assert arranged(listed, diverse(0.9), k=4).rows.tolist() == [1, 2, 25, 49]
    assert arranged(ranked(5), diverse(1.0), k=1).rows.tolist() == [5]


@pytest.mark.parametrize("shift", [-3.0, 0.0, 5.0])
def test_the_marginal_order_does_not_hang_on_where_scores_lie(shift: float) -> None:
    # Spread 0 to 1: 1, .9, .5, 0; of groups a, a, b and none. At .5: first 1; of .45 - .5, .25 and 0 the third; of -.05 and 0 the fourth.
    scores = np.array([1.0, 0.9, 0.5, 0.0]) + shift
    codes = np.array([[1, 1, 2, 0]], np.int32)
    assert marginal_order(scores, codes, 0.5, 4).tolist() == [0, 2, 3, 1]
    assert marginal_order(10 * scores, codes, 0.5, 4).tolist() == [0, 2, 3, 1]
    assert marginal_order(scores, codes, 0.5, 2).tolist() == [0, 2, 1, 3]
    assert marginal_order(scores, codes, 0.0, 4).tolist() == [0, 1, 2, 3]
    assert marginal_order(np.full(3, shift), np.array([[1, 1, 2]], np.int32), 0.5, 3).tolist() == [0, 2, 1]
    assert marginal_order(np.array([1.0, 0.9, 0.0]), np.array([[1, 1, 2], [1, 2, 3]], np.int32), 0.4, 3).tolist() == [
        0,
        1,
        2,
    ]  # half alike: .54 - .2


def test_orders_are_said_together_where_scores_change_and_each_where_it_moves() -> None:
    found = arranged(ranked(1, 2, 3, 4), boost(0.5, brand="brand 1"), boost(0.5, brand="brand 2"), k=2)
    assert rows_and_moves(found) == ([3, 4], [Move("boost", "moved", (1, 2), "its score was multiplied")])


@pytest.mark.parametrize(
    ("left", "size", "pinned", "page", "rest", "skipped", "over"),
    [
        ([0, 1, 2, 3], 2, [], [0, 2], [1, 3], [(1, 0)], []),
        ([0, 1, 2], 3, [], [0, 2, 1], [], [(1, 0)], [1]),
        ([1, 2], 2, [0], [2], [1], [(1, 0)], []),
        ([1], 2, [0], [1], [], [(1, 0)], [1]),
        ([2, 3], 1, [0], [], [2, 3], [], []),
        ([3, 4], 2, [], [3, 4], [], [], []),
    ],
)
def test_a_page_is_filled_by_the_first_that_fit(
    left: list[int], size: int, pinned: list[int], page: list[int], rest: list[int], skipped: list[tuple[int, int]], over: list[int]
) -> None:
    """0 and 1 are of one group, 2 of another, 3 and 4 of none known."""
    assert fill_page(left, Capped([[7, 7, 8, 0, 0]], [1]), size, pinned) == (page, rest, skipped, over)


def test_an_exchange_takes_the_first_new_one_that_fits_for_the_last_old_one() -> None:
    capped = Capped([[7, 8, 7, 9, 0]], [1])
    assert exchange([0, 1], [2, 3, 4], [0, 1], [2, 3], 1, capped, []) == ([0, 3], [1, 2, 4], [3])
    assert exchange([0, 1], [3, 4], [0, 1], [3, 4], 2, capped, []) == ([3, 4], [0, 1], [3, 4])
    assert exchange([0, 1], [2], [0, 1], [2], 1, capped, []) == ([0, 1], [2], [])
    assert exchange([0], [2], [0], [2], 1, capped, [0]) == ([0], [2], [])
    assert exchange([1], [4], [], [4], 1, capped, []) == ([1], [4], [])
    assert [fits(index, [0, 3], capped) for index in range(5)] == [False, True, False, False, True]
    assert fits(2, [0], Capped([[7, 8, 7]], [2]))


def test_what_is_new_is_looked_up_again_when_a_birthday_is_passed() -> None:
    newer = Newer(np.array([10.0, 20.0, np.nan]))

    def of(day: float) -> list[bool]:
        return newer.items(5, Request("", 1, day)).tolist()

    assert [of(day) for day in (14.0, 14.9, 15.0, 24.0, 25.0, 14.0)] == [
        [True, True, False], [True, True, False], [False, True, False], [False, True, False], [False, False, False], [True, True, False],
    ]  # fmt: skip
    assert of(26.0) == [False, False, False]
    assert of(20.0) == [False, True, False]  # a moment before: the second birthday is ahead again
    assert newer.items(50, Request("", 1, 25.0)).tolist() == [True, True, False]
    assert newer.of(np.array([1, 0]), 5, Request("", 1, 15.0)).tolist() == [True, False]


def test_a_floor_holds_for_its_share_of_requests() -> None:
    assert (at_least(1, newer_than_days=1).chance, exposure_floor(1, newer_than_days=1, every=4).chance) == (1.0, 0.25)
    assert exposure_floor(1, newer_than_days=1, every=0).chance == 1.0
    assert all(at_least(1, newer_than_days=1).holds(Request("", 1, DAY, f"r{n}")) for n in range(20))
    held = [exposure_floor(1, newer_than_days=1, every=2).holds(Request("", 1, DAY, f"r{n}")) for n in range(20)]
    assert 4 < sum(held) < 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: at_most(0, per="brand"), r"at_most\(0, per='brand'\): expected a count of 1 or more and one of department"),
        (lambda: at_most(1, per="colour"), "expected a count of 1 or more and one of"),
        (lambda: diverse(1.01), "expected 0 to 1"),
        (lambda: diverse(-0.01), "expected 0 to 1"),
        (lambda: boost(0.0), "expected a factor above 0"),
        (lambda: boost(-1.0), r"boost\(-1.0\): expected a factor above 0"),
        (lambda: Rules([allowed(flag="rude")], TABLE, PAGE), f"known are {', '.join(POLICY_FLAGS)}"),
        (lambda: Rules([boost(2.0, category="nowhere")], TABLE, PAGE), "the catalogue has no 'nowhere': write the name"),
        (lambda: Rules([boost(2.0, brand="nobody")], TABLE, PAGE), "rule boost: the catalogue has no 'nobody'"),
        (lambda: Rules([Rule()], TABLE, PAGE), "expected one of serving.rules.specs"),
    ],
)  # fmt: skip
def test_a_rule_that_says_what_cannot_be_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_the_least_and_the_most_there_can_be_are_taken() -> None:
    assert (at_most(1, per="type").count, diverse(0.0).strength, diverse(1.0).strength, boost(0.001).factor) == (1, 0, 1, 0.001)
    assert (diverse().strength, diverse().among, Boost(2.0).newer_than_days, pin("a").position) == (0.3, 50, 0, 0)
    assert all(made.kind == kind for kind, made in RULES.items())
