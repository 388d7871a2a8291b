"""Features that never varied are named: by hand, and on the small world, where a run's record has them and no other."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from components.ranking.dead import dead_features, sentence, varies
from components.ranking.examples import Sampling, make_examples
from components.ranking.fit import names_of
from components.ranking.fitted import load_cut
from serving.bundle.catalogue import Catalogue

NAN = np.nan


def test_a_column_varies_where_two_values_differ_and_unknown_is_one():
    read = np.array([[1, 1, NAN, NAN, 0], [1, 1, NAN, 2, 0], [1, 3, NAN, 2, 1e-3]], np.float32)
    assert varies(read).tolist() == [False, True, False, True, True]
    assert not varies(read[:0]).any()


def test_of_items_only_those_an_example_is_of_count():
    examples = SimpleNamespace(
        size=np.array([2, 1]),
        cut=np.array([0, 1]),
        item=np.array([0, 1, 2]),
        request=np.array([[1.0], [1.0]]),
        cross=np.array([[1.0], [2.0], [1.0]]),
    )
    old = SimpleNamespace(features=np.array([[5.0, 1.0], [5.0, 1.0], [9.0, 7.0]]))  # the third is in no example of this cut
    new = SimpleNamespace(features=np.array([[9.0, 7.0], [9.0, 7.0], [5.0, 2.0]]))
    names = {"request": ["hour"], "item": ["shade", "age"], "cross": ["rank"]}
    dead = dead_features(examples, [old, new], names)
    assert dead == {"request": ["hour"], "item": ["shade"], "cross": []}
    assert sentence(names, dead) == "2 of 4 features were the same throughout and were not learnt from: hour, shade."
    assert sentence(names, {"request": [], "item": [], "cross": []}) == ""


def test_a_run_names_what_never_varied_and_nothing_else(trained):
    told = json.loads((trained.ranking / "ranking.json").read_text())
    cuts, system = told["cuts"], trained.system
    names = names_of(system, trained.features, cuts[-1])
    assert {side: set(dead) <= set(names[side]) for side, dead in told["dead"].items()} == dict.fromkeys(names, True)
    cut = load_cut(system, trained.features, trained.retrieval, cuts[-1])
    examples = make_examples(system, cut, Sampling(users=20), seed=0)
    for side, column in (("request", examples.request), ("cross", examples.cross)):
        for name, values in zip(names[side], column.T, strict=True):
            if name in told["dead"][side]:
                assert len(np.unique(values)) == 1, name
    features = np.asarray(cut.catalogue.features).copy()
    features[:, 0], features[0, 1] = 3.0, 9.0
    spoilt = replace(cut.catalogue, features=features)
    found = dead_features(replace(examples, cut=np.zeros_like(examples.cut)), [spoilt], names)
    assert names["item"][0] in found["item"]
    assert isinstance(spoilt, Catalogue)
