"""What the rules do to a ranked list, against slow and obvious references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.schema import POLICY_FLAGS
from serving.native import kernel
from serving.query import Request
from serving.rules.arrange import Rules
from serving.rules.rule import BadRule, drawn
from serving.rules.slate import Arranged, Ranked
from serving.rules.specs import allowed, at_least, at_most, boost, diverse, exposure_floor, in_stock, not_recalled, not_seen, pin
from serving.system import Rule
from tests.serving.tiny_bundle import DAY, ITEMS, catalogue

TABLE = catalogue()
PAGE = 5
HARD = (in_stock(), not_recalled(), allowed(flag="blocked"))
CATEGORY, BRAND, NEW = TABLE.category[:, 1], TABLE.brand, TABLE.created_day > DAY - 14


@st.composite
def ranked_lists(draw: st.DrawFn, most: int = 40) -> Ranked:
    """Distinct rows with falling scores, some of them had before."""
    rows = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=most))
    seen = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    scores = np.sort(np.array(draw(st.lists(st.floats(0, 1, width=16), min_size=len(rows), max_size=len(rows))), np.float32))[::-1]
    return Ranked(np.array(rows, np.int32), scores, np.array(seen, bool))


def arrange(ranked: Ranked, *rules: Rule, k: int = PAGE, **asked: object) -> Arranged:
    return Rules(rules, TABLE, PAGE).arrange(ranked, Request("", k, DAY, **asked))  # type: ignore[arg-type]


def ranked_of(*rows: int, seen: tuple[int, ...] = ()) -> Ranked:
    return Ranked(np.array(rows, np.int32), np.linspace(1, 0.5, len(rows), dtype=np.float32), np.isin(rows, seen))


def permitted(rows: np.ndarray) -> list[int]:
    barred = sum(1 << POLICY_FLAGS.index(flag) for flag in ("recalled", "out_of_stock", "blocked"))
    return [int(row) for row in rows if not TABLE.flags[row] & barred]


def slow_pages(rows: list[int], k: int, caps: list[tuple[np.ndarray, int]]) -> list[int]:
    """Page after page: take the first item that breaks no cap, recounting all; when none is left, the first of all."""
    left, chosen = list(rows), []
    while left and len(chosen) < k:
        page: list[int] = []
        while left and len(page) < min(PAGE, k - len(chosen)):
            fitting = [r for r in left if all(not code[r] or sum(code[o] == code[r] for o in page) < cap for code, cap in caps)]
            page.append((fitting or left)[0])
            left.remove(page[-1])
        chosen += page
    return chosen


@given(ranked_lists(), st.integers(1, 30), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_caps_and_hard_rules_give_what_the_slow_reference_gives(ranked: Ranked, k: int, by_category: int, by_brand: int) -> None:
    arranged = arrange(ranked, *HARD, at_most(by_category, per="category"), at_most(by_brand, per="brand"), k=k)
    assert arranged.rows.tolist() == slow_pages(permitted(ranked.rows), k, [(CATEGORY, by_category), (BRAND, by_brand)])


@given(ranked_lists(), st.integers(1, 12), st.integers(0, 3), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_rule_together_bars_what_is_barred_and_answers_all_it_can(ranked: Ranked, k: int, fresh: int, discover: bool) -> None:
    rules = (*HARD, not_seen(), at_most(2, per="category"), at_least(fresh, newer_than_days=14), diverse(0.4), boost(2.0, brand="brand 3"))
    arranged = arrange(ranked, *rules, k=k, discover=discover)
    rows = arranged.rows.tolist()
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(permitted(ranked.rows))
    had = set(ranked.rows[ranked.seen].tolist())
    possible = [row for row in permitted(ranked.rows) if not (discover and row in had)]
    assert len(rows) == min(k, len(possible))
    unseen = [row for row in possible if row not in had]
    assert set(rows) & had == set() or len(unseen) < k  # filled up with what was had only when the rest was not enough
    page = rows[: min(k, PAGE)]
    gave_way = {move.rule for move in arranged.moves if move.what == "gave way"}
    assert "at_most" in gave_way or "not_seen" in gave_way or max(np.bincount(CATEGORY[page], minlength=1)) <= 2
    floor_met = NEW[page].sum() >= min(fresh, len(page))
    assert floor_met or gave_way & {"at_least", "not_seen"}


@given(ranked_lists(), st.integers(1, PAGE), st.integers(1, 2))
@settings(max_examples=150, deadline=None)
def test_a_floor_is_met_wherever_a_new_item_fits_under_the_caps(ranked: Ranked, count: int, cap: int) -> None:
    arranged = arrange(ranked, at_most(cap, per="category"), at_least(count, newer_than_days=14))
    page = arranged.rows.tolist()
    if NEW[page].sum() >= min(count, len(page)) or not len(page):
        return
    old = [row for row in page if not NEW[row]]
    others = [row for row in ranked.rows.tolist() if NEW[row] and row not in page]
    kept = [row for row in page if row != old[-1]]  # the next exchange would have taken the last old one
    assert not any(sum(CATEGORY[other] == CATEGORY[row] for other in kept) < cap or not CATEGORY[row] for row in others)


@given(ranked_lists(most=15), st.sampled_from([0.0, 0.3, 0.9]))
@settings(max_examples=80, deadline=None)
def test_diversity_gives_what_the_slow_reference_gives(ranked: Ranked, strength: float) -> None:
    codes = np.stack([*TABLE.category.T, TABLE.brand])

    def like(a: int, b: int) -> float:
        return float(np.mean([codes[c, a] == codes[c, b] and codes[c, a] > 0 for c in range(4)]))

    rows, scores = ranked.rows.tolist(), ranked.scores.astype(float)
    span = (scores.max() - scores.min() or 1.0) if len(rows) else 1.0
    left, chosen = list(range(len(rows))), []
    while left and len(chosen) < PAGE and len(rows) > 1:
        worth = [
            (scores[i] - scores.min()) / span * (1 - strength) - strength * max([0.0, *(like(rows[i], rows[j]) for j in chosen)])
            for i in left
        ]
        best = left[int(np.argmax(np.round(worth, 6)))]
        chosen.append(best)
        left.remove(best)
    got = arrange(ranked, diverse(strength)).rows.tolist()
    expected = [rows[i] for i in chosen] or rows[:PAGE]
    if got != expected:  # only where two are equally worthy may the order differ
        at = next(i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b)
        before = [rows.index(row) for row in expected[:at]]

        def value(row: int) -> float:
            i = rows.index(row)
            return (scores[i] - scores.min()) / span * (1 - strength) - strength * max([0.0, *(like(row, rows[j]) for j in before)])

        assert value(got[at]) == pytest.approx(value(expected[at]), abs=1e-5)


def test_a_pin_stands_at_its_position_and_counts_under_the_caps() -> None:
    # rows 5, 17, 29 are of one category (n % 12 == 5); 5 is pinned first, so of the others one may follow under a cap of two
    arranged = arrange(ranked_of(17, 29, 1, 2, 3, 4), pin("i005", position=0), at_most(2, per="category"))
    assert arranged.rows.tolist() == [5, 17, 1, 2, 3]
    assert ("pin", "moved", (5,)) in [(move.rule, move.what, move.rows) for move in arranged.moves]


def test_a_recalled_item_is_not_even_pinned() -> None:
    assert arrange(ranked_of(1, 2), pin("i237", position=0), not_recalled()).rows.tolist() == [1, 2]


def test_a_boost_lifts_its_brand_and_leaves_the_rest_in_order() -> None:
    # scores 1, .9, .8, .7, .6, .5; brand 5 is rows 5 and 12: .6 x 2 is first, .5 x 2 = 1 comes after row 1's 1
    arranged = arrange(ranked_of(1, 2, 3, 4, 5, 12), boost(2.0, brand="brand 5"))
    assert arranged.rows.tolist() == [5, 1, 12, 2, 3]


def test_an_item_recalled_while_the_bundle_serves_is_gone_from_the_next_list() -> None:
    rules = Rules(HARD, TABLE, PAGE)
    assert 3 in rules.arrange(ranked_of(1, 2, 3), Request("", 3, DAY)).rows
    rules.flags[3] |= 1 << POLICY_FLAGS.index("recalled")
    arranged = rules.arrange(ranked_of(1, 2, 3), Request("", 3, DAY))
    assert arranged.rows.tolist() == [1, 2]
    assert [(move.rule, move.rows) for move in arranged.moves] == [("not_recalled", (3,))]


def test_an_exposure_floor_is_drawn_by_the_requests_id_for_its_share_of_them() -> None:
    ids = [f"request-{number}" for number in range(4000)]
    assert np.mean([drawn(name, 10) for name in ids]) == pytest.approx(0.1, abs=0.02)
    lucky = next(name for name in ids if drawn(name, 10))
    other = next(name for name in ids if not drawn(name, 10))
    rule = exposure_floor(1, newer_than_days=14, every=10)
    ranked = ranked_of(1, 2, 3, 4, 5, 19)  # 19 is new
    assert arrange(ranked, rule, request_id=lucky).rows.tolist() == [1, 2, 3, 4, 19]
    assert arrange(ranked, rule, request_id=other).rows.tolist() == [1, 2, 3, 4, 5]


def test_caps_outrank_floors() -> None:
    # 9, 69 are new and, like 21 and 33, of category n % 12 == 9; two of the category stand before them
    arranged = arrange(ranked_of(21, 33, 1, 2, 3, 9, 69), at_most(2, per="category"), at_least(1, newer_than_days=14))
    assert arranged.rows.tolist() == [21, 33, 1, 2, 3]
    assert [(move.rule, move.what) for move in arranged.moves] == [("at_least", "gave way")]


def test_what_the_user_has_had_fills_the_list_only_when_nothing_else_is_left() -> None:
    ranked = ranked_of(1, 2, 3, 4, seen=(1, 3))
    assert arrange(ranked, not_seen(), k=3).rows.tolist() == [2, 4, 1]
    assert arrange(ranked, not_seen(), k=3, discover=True).rows.tolist() == [2, 4]
    assert arrange(ranked, k=3, discover=True).rows.tolist() == [2, 4]  # the request alone asks for it


@given(
    ranked_lists(200), st.integers(1, PAGE), st.integers(1, 3), st.integers(1, 4), st.floats(0, 400), st.integers(0, 4), st.booleans(),
    st.booleans(), st.sampled_from(["", "blocked"]),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_the_compiled_walk_arranges_and_tells_the_same(
    ranked: Ranked, k: int, cap: int, floor: int, days: float, other: int, had: bool, discover: bool, flag: str
) -> None:
    specs = [at_most(cap, per="category"), at_most(cap + 1, per="brand"), at_least(floor, newer_than_days=days)]
    specs += [exposure_floor(other, newer_than_days=days / 2, every=2)] if other else []
    specs += [not_seen()] if had else []
    specs += [allowed(flag=flag)] if flag else []
    rules, asked = Rules(specs, TABLE, PAGE), Request("", k, DAY, "r2", discover=discover)
    plain, whole = rules._first_page(ranked, asked), rules._arranged(ranked, asked)
    if plain is not None:
        assert (plain.rows.tolist(), plain.scores.tolist(), plain.moves) == (whole.rows.tolist(), whole.scores.tolist(), whole.moves)
    elif kernel.native():
        barred = ranked.rows.tolist() != [row for row in ranked.rows if not flag or not TABLE.flags[row] & 1 << POLICY_FLAGS.index(flag)]
        short = len(whole.rows) < k or any(move.what == "gave way" for move in whole.moves)
        assert barred or short or len(ranked.rows) > 128


def test_a_long_list_obeys_the_caps_page_by_page() -> None:
    rows = arrange(ranked_of(*range(0, 240, 12), *range(1, 30)), at_most(2, per="category"), k=20).rows
    pages = rows.reshape(4, PAGE)
    assert all(np.bincount(CATEGORY[page]).max() <= 2 for page in pages)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Rule(), "no rule"),
        (allowed(flag="rude"), "no policy flag 'rude'"),
        (boost(2.0, brand="nobody"), "the catalogue has no 'nobody'"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused_by_name(spec: Rule, message: str) -> None:
    with pytest.raises(BadRule, match=message):
        Rules((spec,), TABLE, PAGE)


def test_no_item_at_all_gives_an_empty_list() -> None:
    assert arrange(ranked_of(), *HARD, at_least(2, newer_than_days=14), diverse()).rows.tolist() == []


def test_scores_stay_with_their_rows() -> None:
    ranked = ranked_of(1, 13, 25, 2, 3, 4, 5)
    arranged = arrange(ranked, at_most(1, per="category"))
    score_of = dict(zip(ranked.rows.tolist(), ranked.scores.tolist(), strict=True))
    assert arranged.scores.tolist() == [score_of[row] for row in arranged.rows.tolist()]
