"""Rules: what an answer may hold. Data in the system file, pure functions here, each naming what it removed or moved."""

from serving.system import RuleSpec


def in_stock() -> RuleSpec:
    """Never an item flagged out_of_stock."""
    return RuleSpec("in_stock")


def not_recalled() -> RuleSpec:
    """Never an item flagged recalled."""
    return RuleSpec("not_recalled")


def at_most(count: int, *, per: str) -> RuleSpec:
    """At most `count` items of one `per` ("category" or "brand") in an answer."""
    return RuleSpec("at_most", {"count": count, "per": per})


def at_least(count: int, *, newer_than_days: float) -> RuleSpec:
    """At least `count` items that entered the catalogue within the last days, where the pool holds them."""
    return RuleSpec("at_least", {"count": count, "newer_than_days": newer_than_days})
