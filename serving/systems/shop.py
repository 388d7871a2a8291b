"""The grocery: ten products for a household, learnt from a year of receipts."""

from serving.objectives import Objective
from serving.retrieval.buy_again import buy_again
from serving.retrieval.category_promotion import category_promotion
from serving.retrieval.linear import linear
from serving.retrieval.trending import trending
from serving.retrieval.two_tower import two_tower
from serving.rules.specs import at_least, at_most, in_stock, not_recalled
from serving.system import Budget, Learning, System

SHOP = System(
    name="shop",
    answer_size=10,
    pool_size=1000,
    light_size=200,
    sources=(
        buy_again(tau_days=90, share=0.25),
        linear(share=0.25),
        two_tower(share=0.2),
        category_promotion(share=0.2),
        trending(days=28, share=0.1),
    ),
    objectives={"repeat": Objective("again positive", 0.7), "discover": Objective("first positive", 0.3, listwise=0.3)},
    rules=(in_stock(), not_recalled(), at_most(3, per="category"), at_least(1, newer_than_days=14)),
    budget=Budget(total_ms=100, features_ms=10, retrieval_ms=30, models_ms=50, rules_ms=10),
    learning=Learning(positives=("purchase",), horizon_days=7),
    feature_repo="feature_repo/shop",
    ingest="components.data.complete_journey:ingest",
    noun="product",
    verb="bought",
)
