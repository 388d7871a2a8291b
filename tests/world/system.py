"""A tiny shop with a known truth: four taste groups, staples on a cycle. The tests' own system, a file of the same kind as the shop's."""

from serving.objectives import Objective
from serving.retrieval.buy_again import buy_again
from serving.retrieval.category_promotion import category_promotion
from serving.retrieval.linear import linear
from serving.retrieval.trending import trending
from serving.retrieval.two_tower import two_tower
from serving.rules.specs import at_least, at_most, in_stock, not_recalled
from serving.system import Budget, Learning, System

WORLD = System(
    name="world",
    answer_size=5,
    pool_size=80,
    light_size=40,
    sources=(
        buy_again(tau_days=30, share=0.25),
        linear(neighbours=40, share=0.25),
        two_tower(dimensions=16, share=0.2),
        category_promotion(share=0.2),
        trending(days=28, share=0.1),
    ),
    objectives={"repeat": Objective("again positive", 0.6), "discover": Objective("first positive", 0.4, listwise=0.3)},
    rules=(in_stock(), not_recalled(), at_most(3, per="category"), at_least(1, newer_than_days=14)),
    budget=Budget(total_ms=100, features_ms=10, retrieval_ms=30, models_ms=50, rules_ms=10),
    learning=Learning(positives=("purchase",), horizon_days=7, cuts=4),
    feature_repo="tests/world/feature_repo",
    ingest="tests.world.generate:ingest",
    noun="snack",
    verb="ate",
)
