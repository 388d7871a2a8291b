"""Rules: what an answer may hold. Data in the system file, applied in `serving/rules/arrange.py`; each names what it removed or moved.

| kind                      | effect                                                                   | class  |
|---------------------------|--------------------------------------------------------------------------|--------|
| in_stock, not_recalled, allowed | items carrying the flag are removed                                | hard   |
| not_seen                  | items the user has had are removed                                       | filter |
| pin                       | the item stands at a position, whatever its score                        | pin    |
| at_most                   | at most N of one category, department, type or brand                     | cap    |
| at_least, exposure_floor  | at least N items new to the catalogue (always, or in 1 of `every` requests) | floor  |
| boost, diverse            | the order changes, nothing is added or removed                           | order  |

A list longer than one answer (`k > answer_size`) is arranged page by page: every page obeys the caps, what a page leaves out is first
for the next. Items of an unknown category or brand are not counted together.

**When rules conflict, or the pool is too small**, they give way in this order, and the trace says so:

1. order rules: they only choose among what the others allow;
2. floors: met as far as the pool holds new items that fit under the caps;
3. caps: what they left out fills the list, best first;
4. `not_seen`: what the user has had fills the list (never when the request itself says `discover`);
5. pins: only an item barred by a hard rule, or one the catalogue lacks, is not pinned.

Hard rules never give way. If the pool still holds fewer than k, the popular, then the static list, then the catalogue in its order fill
up, under the same rules; so an answer is empty only where no item at all is allowed.
"""

from serving.system import RuleSpec

GROUPS = ("department", "category", "type", "brand")  # levels 0, 1, 2 of the category path, and the brand


def in_stock() -> RuleSpec:
    """Never an item flagged out_of_stock."""
    return RuleSpec("in_stock")


def not_recalled() -> RuleSpec:
    """Never an item flagged recalled."""
    return RuleSpec("not_recalled")


def allowed(*, flag: str) -> RuleSpec:
    """Never an item carrying this policy flag (`feature_repo.schema.POLICY_FLAGS`)."""
    return RuleSpec("allowed", {"flag": flag})


def not_seen() -> RuleSpec:
    """Leave out what the user has had; gives way when nothing else is left."""
    return RuleSpec("not_seen")


def at_most(count: int, *, per: str) -> RuleSpec:
    """At most `count` items of one `per` (one of `GROUPS`) in an answer."""
    if count < 1 or per not in GROUPS:
        raise ValueError(f"at_most({count}, per={per!r}): expected a count of 1 or more and one of {', '.join(GROUPS)}")
    return RuleSpec("at_most", {"count": count, "per": per})


def at_least(count: int, *, newer_than_days: float) -> RuleSpec:
    """At least `count` items that entered the catalogue within the last days, where the pool holds them."""
    return RuleSpec("at_least", {"count": count, "newer_than_days": newer_than_days})


def exposure_floor(count: int, *, newer_than_days: float, every: int) -> RuleSpec:
    """Like `at_least`, in one of `every` requests (chosen by the request's id): new items are shown often enough to be judged."""
    return RuleSpec("exposure_floor", {"count": count, "newer_than_days": newer_than_days, "every": every})


def diverse(strength: float = 0.3, *, among: int = 50) -> RuleSpec:
    """Maximal marginal relevance (Carbonell, Goldstein 1998) over the best `among`: 0 keeps the order, 1 sees only difference."""
    if not 0 <= strength <= 1:
        raise ValueError(f"diverse(strength={strength}): expected 0 to 1")
    return RuleSpec("diverse", {"strength": strength, "among": among})


def pin(item_id: str, *, position: int = 0) -> RuleSpec:
    """The item stands at this 0-based position of the first page."""
    return RuleSpec("pin", {"item_id": item_id, "position": position})


def boost(factor: float, *, brand: str = "", category: str = "", newer_than_days: float = 0) -> RuleSpec:
    """Multiply the score of the named brand's, category's or new items (the conditions given must all hold)."""
    if factor <= 0:
        raise ValueError(f"boost({factor}): expected a factor above 0")
    return RuleSpec("boost", {"factor": factor, "brand": brand, "category": category, "newer_than_days": newer_than_days})
