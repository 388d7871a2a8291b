"""The tiny bundle's system: every kind of rule, three sources, ten items an answer."""

from serving.objectives import Objective
from serving.retrieval.buy_again import buy_again
from serving.retrieval.linear import linear
from serving.retrieval.trending import trending
from serving.rules.specs import allowed, at_least, at_most, in_stock, not_recalled
from serving.system import Budget, Learning, System

TINY = System(
    name="tiny",
    answer_size=10,
    pool_size=100,
    light_size=30,
    sources=(buy_again(share=0.3, tau_days=60), linear(share=0.4), trending(share=0.3)),
    objectives={"repeat": Objective("again positive", 0.7), "discover": Objective("first positive", 0.3, listwise=0.3)},
    rules=(in_stock(), not_recalled(), allowed(flag="blocked"), at_most(3, per="category"), at_least(1, newer_than_days=14)),
    budget=Budget(total_ms=100, features_ms=10, retrieval_ms=30, models_ms=50, rules_ms=10),
    learning=Learning(),
    feature_repo="tests/world/feature_repo",
    ingest="tests.world.generate:ingest",
    noun="product",
    verb="bought",
)
