"""A daily training goes on from what a judged bundle learnt: rows and codes are found by name, and none is judged on what it saw."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.ranking.model import Ranker, Sizes
from components.ranking.warm import taken_over
from components.retrieval import two_tower
from components.retrieval.tower_model import Towers
from components.start import BadStart, Start, known_mode
from serving.retrieval.two_tower import two_tower as tower_spec
from tests.components.retrieval.worlds import CUT_DAY, catalogue, cut

CUTS = ("2024-03-11", "2024-03-18")
ITEMS = [f"{item:02d}" for item in range(40)]
SPEC = tower_spec(share=1.0, dimensions=16)


def start_at(folder: Path, items: list[str] = ITEMS, names: tuple[str, ...] = ("unknown", "a", "b"), towers: bool = False) -> Start:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "item_ids.npy", np.array([item.encode() for item in items]))
    told = {"bundle": "f00d", "cut": CUTS[1], "category_names": names, "brand_names": ("unknown", "x")}
    (folder / "start.json").write_text(json.dumps(told))
    for name in CUTS if towers else ():
        (folder / "towers").mkdir(exist_ok=True)
        (folder / "towers" / f"{name}.pt").touch()
    return Start.load(folder)


def test_rows_are_found_by_item_wherever_they_lie_now(tmp_path: Path) -> None:
    now = catalogue(["00", "01a", "39", "02"])
    assert [bytes(item) for item in now.item_ids] == [b"00", b"01a", b"02", b"39"]
    assert start_at(tmp_path).rows_of(now).tolist() == [0, -1, 2, 39]


def test_towers_that_have_seen_later_days_are_not_taken(tmp_path: Path) -> None:
    start = start_at(tmp_path, towers=True)
    found = [start.towers_before(moment) for moment in ("2024-03-11", "2024-03-17", "2024-03-18", "2024-04-01")]
    assert [file.stem for file in found if file] == [CUTS[0], CUTS[0], CUTS[1], CUTS[1]]
    with pytest.raises(BadStart, match="have all seen what came after 2024-03-10: train with --mode full"):
        start.towers_before("2024-03-10")
    assert start_at(tmp_path / "without").towers_before("2024-03-11") is None


def test_a_candidate_is_not_judged_on_days_its_start_knows(tmp_path: Path) -> None:
    start = start_at(tmp_path)
    start.refuse_if_it_knows("2024-03-18")
    with pytest.raises(BadStart, match="has learnt from rows up to 2024-03-18, after the cut 2024-03-17"):
        start.refuse_if_it_knows("2024-03-17")


def test_an_unknown_mode_is_named() -> None:
    assert known_mode("daily") == "daily"
    with pytest.raises(ValueError, match="'hourly' is no mode: choose full or daily"):
        known_mode("hourly")


def coloured(users: int = 60) -> list[tuple[str, str, float]]:
    """A user had most items of the own colour."""
    random = np.random.default_rng(0)
    return [
        (f"{user:02d}", f"{item:02d}", float(CUT_DAY - random.integers(15, 27)))
        for user in range(users)
        for item in random.permutation(np.arange(user % 2, 40, 2))[:14]
    ]


def test_towers_go_on_from_the_former_ones_though_items_came_and_went(tmp_path: Path) -> None:
    former = two_tower.Advancing(SPEC, fast=True, seed=0)
    world = cut(coloured(), catalogue(ITEMS))
    for _ in range(3):
        former.advance(world, tmp_path / "then", tmp_path / "towers" / f"{CUTS[1]}.pt")
    start = start_at(tmp_path)
    later = cut(coloured(), catalogue(["00a", *ITEMS[2:]]))  # one came, two went: every row has moved
    going_on = two_tower.Advancing(SPEC, fast=True, seed=1, start=start)
    trainer = two_tower.Trainer(later, two_tower.catalogue_content(later.catalogue), 16, going_on.training, 1)
    later = replace(later, name=CUTS[1])
    assert going_on._went_on(later, trainer)
    then, now = Towers.load(tmp_path / "towers" / f"{CUTS[1]}.pt"), trainer.towers
    rows = start.rows_of(later.catalogue)
    assert (rows >= 0).sum() == 38
    kept = torch.from_numpy(rows[rows >= 0])
    for name in ("own", "history"):
        assert torch.equal(getattr(now, name).weight[rows >= 0], getattr(then, name).weight[kept])
    assert torch.equal(now.user.bag.weight, then.user.bag.weight)
    fresh = int(np.flatnonzero(rows < 0)[0])
    assert torch.count_nonzero(now.own.weight[fresh]) == 0  # its content stands for it
    assert torch.count_nonzero(now.history.weight[fresh]) > 0


def test_towers_of_another_shape_are_refused(tmp_path: Path) -> None:
    world = replace(cut(coloured(), catalogue(ITEMS)), name=CUTS[1])
    two_tower.Advancing(SPEC, fast=True, seed=0).advance(world, tmp_path / "then", tmp_path / "towers" / f"{CUTS[1]}.pt")
    wider = two_tower.Advancing(tower_spec(share=1.0, dimensions=24), fast=True, seed=0, start=start_at(tmp_path))
    with pytest.raises(BadStart, match=r"of 16 dimensions .* now of 24 dimensions .*: train with --mode full"):
        wider.advance(world, tmp_path / "now", tmp_path / "now.pt")


def test_a_ranker_reads_todays_codes_by_their_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    former = Ranker(Sizes(request=3, item=2, cross=2, codes=(3, 3, 3, 2), hidden=(8,), heads=("chosen: positive",))).eval()
    now = replace(catalogue(ITEMS), category_names=("unknown", "new", "b", "a"), brand_names=("unknown", "x", "y"))
    sizes = replace(former.sizes, codes=(4, 4, 4, 3))
    ranker = taken_over(former, sizes, start_at(tmp_path), now).eval()
    request, item, cross = torch.ones(1, 3), torch.ones(1, 2), torch.ones(1, 2)
    then = former(request, item, torch.tensor([[1, 2, 2, 1]]), cross)  # a, b, b; x
    assert torch.equal(ranker(request, item, torch.tensor([[3, 2, 2, 1]]), cross), then)
    unknown = former(request, item, torch.tensor([[0, 0, 0, 0]]), cross)
    assert torch.equal(ranker(request, item, torch.tensor([[1, 1, 1, 2]]), cross), unknown)  # new, new, new; y
    with pytest.raises(BadStart, match=r"read \(3, 2, 2\) features, now there are \(4, 2, 2\): train with --mode full"):
        taken_over(former, replace(sizes, request=4), start_at(tmp_path), now)
