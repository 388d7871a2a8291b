"""Learning from lists whose position bias is known: the made platform reads a page from the top and may leave at each video."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from components.data.video.pages import PageRequests, Slates
from components.data.video_world import ByChance, Size, World
from components.ranking.examples import Examples
from components.ranking.fitted import SLOTS, slot_of
from components.ranking.model import Ranker, Sizes
from components.ranking.train import Fitting, Material, fit, predict
from serving.objectives import Objective
from serving.ranking.heads import Heads

SMALL = Size(users=1500, channels=40, videos=800, days=3, ahead_days=1)
HEADS = {"click": Objective("click", 1.0)}


@dataclass(frozen=True)
class EvenOnTop:
    """Videos by chance, in three pages of four those of even rows on top: without the fourth nobody could tell place from kind."""

    world: World

    def __call__(self, visits: PageRequests) -> Slates:
        rows = ByChance(self.world)(visits).rows
        sorts = self.world.random_of(visits).random((len(rows), 1)) < 0.75
        return Slates.of(np.take_along_axis(rows, np.argsort(rows % 2 * sorts, axis=1, kind="stable"), 1))


@pytest.fixture(scope="module")
def shown() -> tuple[Material, np.ndarray]:
    """Every page that was met under `EvenOnTop` as a query, and the chance of a click on each shown video alone (N,): the truth."""
    world, parts, truth = World(SMALL), [], []
    world.day = float(SMALL.days)
    for _ in range(6):
        for page in world.step(EvenOnTop(world), hours=12).pages:
            if page.number:
                alone = world.behaviour.alone(page.visits, page.slates.rows).click
                s, k = np.nonzero(page.happened.shown)
                parts.append((page.slates.rows[s, k], k, page.happened.clicked[s, k], page.happened.shown.sum(axis=1)))
                truth.append(alone[s, k])
    item, place, clicked, size = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    size, count, queries = size[size > 0], len(item), int((size > 0).sum())
    examples = Examples(
        request=np.zeros((queries, 1), np.float32), size=size, cut=np.zeros(queries, np.int32), discover=np.zeros(queries, bool),
        targets=np.ones(queries, np.int32), item=item.astype(np.int32), cross=np.zeros((count, 1), np.float16), label=clicked,
        outcome=clicked[:, None].astype(np.float32), seen=np.zeros(count, bool), weight=np.ones(count, np.float32),
        slot=np.array([slot_of(at) for at in place.tolist()], np.uint8),
    )  # fmt: skip
    library = world.library
    items = np.stack([np.arange(len(library)) % 2, library.quality, library.bait], axis=1).astype(np.float32)
    codes, judging = np.zeros((len(library), 4), np.int32), Heads.of(HEADS).judging(examples.seen)
    return Material(examples, np.cumsum(size), item.astype(np.int64), items, codes, judging), np.concatenate(truth)


def learnt(material: Material) -> tuple[Ranker, np.ndarray]:
    """A ranker of the items' own features, and what it says of every example."""
    sizes = Sizes(request=1, item=3, cross=1, codes=(1, 1, 1, 1), hidden=(16,), heads=tuple(HEADS), side=8)
    queries = np.arange(len(material.examples.size))
    model = fit(sizes, material, queries, Fitting(epochs=3, queries=48), tuple(HEADS.values()))
    return model, predict(model, material, queries)[:, 0]


def apart(values: np.ndarray, material: Material) -> float:
    """By how much more those of even rows have."""
    even = material.item % 2 == 0
    return float(values[even].mean() - values[~even].mean())


def test_what_stands_on_top_is_not_taken_for_what_is_wanted(shown: tuple[Material, np.ndarray]) -> None:
    material, truth = shown
    known = np.log(truth / (1 - truth))
    model, told = learnt(material)
    blind = replace(material, examples=replace(material.examples, slot=np.zeros(len(told), np.uint8)))
    _, fooled = learnt(blind)
    assert abs(apart(told, material) - apart(known, material)) < 0.2
    assert apart(fooled, material) - apart(known, material) > 0.4
    added = model.slots[1:, 0].detach().numpy()
    assert len(added) == SLOTS - 1
    assert added[0] > added[3] > added[-1]
