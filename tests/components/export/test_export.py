"""What is served answers like what was learnt."""

import json

import numpy as np
import pytest
import torch

from components.cut import cut_folders
from components.export.export import export, last_towers
from components.export.graphs import candidate_graph, user_half
from components.export.onnx import to_int8
from components.ranking.fitted import item_codes
from components.ranking.model import Ranker, Sizes, load
from serving.bundle.bundle import Bundle
from serving.bundle.catalogue import Catalogue
from serving.bundle.content import catalogue_content
from serving.bundle.onnx import open_session
from serving.native import kernel
from serving.ranking.rankers import Rankers, score


def random_ranker() -> Ranker:
    torch.manual_seed(0)
    model = Ranker(Sizes(request=3, item=4, cross=6, codes=(5, 5, 5, 5), hidden=(64, 32), heads=("repeat", "discover")))
    for norm, columns in ((model.request_norm, 3), (model.item_norm, 4), (model.cross_norm, 6)):
        norm.fit(np.random.default_rng(1).normal(size=(50, columns)))
    return model.eval()


def test_the_graph_answers_like_the_network():
    model = random_ranker()
    user, item, cross = torch.randn(1, 64), torch.randn(9, 64), torch.randn(9, 6)
    with torch.no_grad():
        expected = model.score(user, item, cross).numpy()
        halves = (user + model.cross_side.bias + item).numpy()
    graph = candidate_graph(model)
    assert score(open_session(graph), halves, cross.numpy()) == pytest.approx(expected, abs=1e-5)
    int8 = score(open_session(to_int8(graph)), halves, cross.numpy())
    assert int8 == pytest.approx(expected, abs=0.1)
    assert not np.array_equal(int8, expected)  # it is another arithmetic


def test_the_same_weights_give_the_same_bytes():
    assert candidate_graph(random_ranker()) == candidate_graph(random_ranker())
    assert to_int8(candidate_graph(random_ranker())) == to_int8(candidate_graph(random_ranker()))


def test_the_served_models_are_those_that_were_learnt(trained):
    rankers = Rankers.load(trained.bundle)
    catalogue = Catalogue.load(trained.bundle / "item_table")
    codes = item_codes(catalogue, catalogue)
    rows, rng = np.arange(20, dtype=np.int32), np.random.default_rng(0)
    bag = np.zeros(rankers.sessions["request"].get_inputs()[1].shape[1], np.float32)
    side = rankers.user_side(rng.normal(size=rankers.request_width).astype(np.float32), bag)
    again = rankers.user_side(rng.normal(size=rankers.request_width).astype(np.float32), bag)
    assert not np.array_equal(side.heavy, again.heavy)
    for name, half in (("light", side.light), ("heavy", side.heavy)):
        model = load(trained.ranking / f"{name}.pt")
        cross = rng.normal(size=(len(rows), model.sizes.cross)).astype(np.float32)
        with torch.no_grad():
            items = model.item(torch.from_numpy(np.array(catalogue.features)[rows]), torch.from_numpy(codes[rows]).long())
            user = torch.from_numpy(half) - model.cross_side.bias  # the half has it already
            expected = model.score(user, items, torch.from_numpy(cross)).numpy()
        served = getattr(rankers, name)(side, rows, cross)
        assert served == pytest.approx(expected, abs=0.2)  # float16 halves, INT8 where it won


def test_the_users_side_is_what_the_networks_make_of_the_same_features(trained):
    rankers, rng = Rankers.load(trained.bundle), np.random.default_rng(0)
    towers, _ = last_towers(trained.system, trained.retrieval, cut_folders(trained.features)[-1].name)
    assert towers is not None
    assert rankers.user_layers is not None or not kernel.native()
    for known in (rankers.request_width, rankers.request_width - 3):  # the last ones are missing
        features = (rng.normal(size=known) * 3).astype(np.float32)
        whole = np.full((1, rankers.request_width), np.nan, np.float32)
        whole[0, :known] = features
        whole[0, 2] = features[2] = np.nan
        bag = rng.normal(size=towers.config.dimensions).astype(np.float32)
        side = rankers.user_side(features, bag)
        with torch.no_grad():
            for name, half in (("light", side.light), ("heavy", side.heavy)):
                model = load(trained.ranking / f"{name}.pt")
                assert half == pytest.approx(user_half(model, torch.from_numpy(whole)).numpy(), abs=1e-4)
            own = torch.from_numpy(whole[:, -towers.config.user_features :])
            assert side.vector == pytest.approx(towers.user(own, torch.from_numpy(bag[None])).numpy()[0], abs=1e-5)


def test_an_item_posted_later_gets_the_halves_it_would_have_had(trained):
    rankers, bundle = Rankers.load(trained.bundle), Bundle.load(trained.bundle)
    catalogue = bundle.catalogue
    content = catalogue_content(catalogue)
    side = rankers.item(np.array(catalogue.features), item_codes(catalogue, catalogue), content)
    for name, made in (("light", side.light), ("heavy", side.heavy)):
        assert made == pytest.approx(rankers.item_halves(name, np.arange(len(catalogue))), rel=2e-3, abs=2e-3)
    assert np.linalg.norm(side.vector, axis=1) == pytest.approx(1, abs=1e-4)


def test_the_record_says_what_is_served_and_why(trained):
    record = json.loads((trained.export / "parity.json").read_text())
    for name in ("light", "heavy"):
        assert record[name]["served"] in ("fp32", "int8")
        assert record[name]["why"]
        assert record[name]["exact"]["parity"] < 1e-3
        assert record[name]["exact"]["overlap"] == 1
        assert set(record[name]["forms"]) == {"fp32", "int8"}


def test_exporting_again_gives_the_same_bytes(trained, tmp_path):
    export(trained.system, trained.features, trained.retrieval, trained.ranking, tmp_path)
    for name in ("request.onnx", "item.onnx", "halves/light.npy", "halves/heavy.npy"):
        assert (tmp_path / name).read_bytes() == (trained.export / name).read_bytes(), name
