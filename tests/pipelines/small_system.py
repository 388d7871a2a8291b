"""The tiny world, learnt by its cheapest sources from one cut: what the tests of the whole loop need of a system, and no more."""

from dataclasses import replace

from serving.retrieval.buy_again import buy_again
from serving.retrieval.linear import linear
from serving.retrieval.trending import trending
from tests.world import system

SMALL = replace(
    system.WORLD,
    sources=(buy_again(tau_days=30, share=0.4), linear(neighbours=40, share=0.4), trending(days=28, share=0.2)),
    learning=replace(system.WORLD.learning, cuts=1),
)
