"""A source, a rule and a cross feature from outside the tree, named in a system file: fitted, asked, explained, grown, refused by name."""

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from components.retrieval.twins import UnfittableSource, fit_of
from components.step import code_version
from serving.bundle.bundle import BadBundle, Bundle, show
from serving.bundle.catalogue import Catalogue
from serving.exposures.explain import explain, replay
from serving.exposures.record import record_of
from serving.messages import NewItem
from serving.new_items.extend import grown
from serving.query import Request
from serving.ranking.attribution import moved
from serving.ranking.features import cross_features
from serving.recommender import Recommender
from serving.retrieval.sources import UnknownSource, source_class
from serving.state.user_state import StateTable, UserState
from serving.system import SourceSpec, System, UnknownName, load_system
from tests.conftest import Trained
from tests.own_kinds import write_package
from tests.world.loop import learn

KIND = "mypackage.sources:Session"


@dataclass(frozen=True)
class Own:
    """The system that names them, and its recommender on the tiny world."""

    file: Path
    system: System
    recommender: Recommender
    dear: np.ndarray  # (I,) what the rule bars


@pytest.fixture(scope="module")
def own(trained: Trained, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    prices = np.asarray(Catalogue.load(sorted((trained.features / "cuts").iterdir())[-1] / "item_table").price)
    above = float(np.nanquantile(prices, 0.9))
    outside = tmp_path_factory.mktemp("outside")
    file = write_package(outside, above)
    sys.path.insert(0, str(outside))
    try:
        system, home = load_system(str(file)), tmp_path_factory.mktemp("own")
        (home / "features").symlink_to(trained.features)
        yield Own(file, system, Recommender(Bundle.load(learn(system, home)), system), np.nan_to_num(prices) > above)
    finally:
        sys.path.remove(str(outside))
        for name in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
            del sys.modules[name]


def looking(own: Own, trained: Trained, user: int = 0) -> tuple[int, UserState, Request]:
    """A user who has just looked at an item, the first of a category with several."""
    users, catalogue = StateTable.load(trained.users), own.recommender.catalogue
    row = int(np.argmax(np.bincount(catalogue.category[:, 1])[catalogue.category[:, 1]] * ~own.dear))
    state = users[user].with_session_event(int(catalogue.keys[row]), "click", users.cut_day - 0.01)
    return row, state, Request(state.user_id, 5, users.cut_day, "r")


def test_the_bundle_holds_the_fitted_source_and_the_rule_as_plain_values(own: Own) -> None:
    bundle = own.recommender.bundle
    assert (bundle.folder / "sources" / "mypackage.sources.Session").is_dir()
    settings = show(bundle.folder)["settings"]
    assert settings["sources"][2]["kind"] == KIND
    assert settings["rules"][1]["kind"] == "mypackage.rules:Dearest"
    assert list(settings["rules"][1]["settings"]) == ["above"]
    assert ["score_" + KIND, "float32"] in show(bundle.folder)["schema"]["cross"]


def test_its_cross_feature_is_learnt_from_and_told_last(own: Own, trained: Trained) -> None:
    users, catalogue = StateTable.load(trained.users), own.recommender.catalogue
    assert show(own.recommender.bundle.folder)["schema"]["cross"][-1] == ["dearer", "float32"]
    query = own.recommender.query(Request(users[0].user_id, 5, users.cut_day), users[0])
    pool = own.recommender.retrieve(query)
    usual = np.mean([catalogue.price[row] for row in query.history_rows])
    expected = np.nan_to_num([np.log(catalogue.price[row] / usual) for row in pool.rows])
    np.testing.assert_allclose(cross_features(query, pool)[:, -1], expected, rtol=1e-5)
    side = own.recommender.user_side(query)
    assert moved(own.recommender.scoring, query, side, pool, own.recommender.scoring.rank(query, side, pool), pool.rows[:3], item=True)


def test_a_cross_feature_that_is_half_or_another_than_learnt_is_refused_by_name(own: Own, trained: Trained) -> None:
    users = StateTable.load(trained.users)
    half = replace(own.system.learning, cross=("mypackage.features:half",))
    with pytest.raises(BadBundle, match=r"was learnt with cross features \('mypackage.features:dearer',\), own's file names"):
        Recommender(own.recommender.bundle, replace(own.system, learning=half))
    query = replace(own.recommender.query(Request("u", 5, users.cut_day), users[0]), learning=half)
    with pytest.raises(ValueError, match=r"'mypackage.features:half' gave shape \(1,\) for \d+ candidates"):
        cross_features(query, own.recommender.retrieve(query))
    for path, problem in (("mypackage.features:absent", "has no 'absent'"), ("nowhere:f", "cannot be imported")):
        with pytest.raises(UnknownName, match=problem):
            cross_features(replace(query, learning=replace(half, cross=(path,))), own.recommender.retrieve(query))
    with pytest.raises(ValueError, match="'seen' twice"):
        replace(half, cross=("mypackage.features:seen",))


def test_it_is_asked_and_speaks_and_its_contributions_are_told(own: Own, trained: Trained) -> None:
    row, state, request = looking(own, trained)
    query = own.recommender.query(structs.replace(request, discover=True), state)
    category = own.recommender.catalogue.category[:, 1]
    found = own.recommender.sources[2].retrieve(query, 10).rows
    assert len(found)
    assert set(category[found]) == {category[row]}
    answer = own.recommender.recommend(request, state)
    story = explain(own.recommender, record_of(answer))
    of_it = [item for item in story["items"] if KIND in item["sources"]]
    assert of_it
    assert all(item["contributions"][KIND][0]["item_id"] == own.recommender.catalogue.item_id(row) for item in of_it)
    assert own.recommender.reasons.sentence(query, int(found[-1]), (2,), (KIND,)) == "More of what you are looking at"
    assert replay(own.recommender, record_of(answer)).items == answer.items


def test_its_rule_holds_on_every_list_and_a_recall_beside_it(own: Own, trained: Trained) -> None:
    users = StateTable.load(trained.users)
    assert own.dear.any()
    for user in range(20):
        for discover in (False, True):
            request = Request(users[user].user_id, 30, users.cut_day, discover=discover)
            assert not own.dear[[item.row for item in own.recommender.recommend(request, users[user]).items]].any()
    dear = own.recommender.catalogue.item_id(int(np.flatnonzero(own.dear)[0]))
    larger = grown(own.recommender, [NewItem(dear)])  # its policy flags are set anew: none
    assert not larger.rules.permits(np.flatnonzero(own.dear)).any()


def test_it_takes_up_posted_items(own: Own, trained: Trained) -> None:
    row, state, request = looking(own, trained)
    catalogue = own.recommender.catalogue
    path = catalogue.category_names[catalogue.category[row, 1]]
    larger = grown(own.recommender, [NewItem("posted", path)])
    asked = larger.query(request, state)
    assert larger.catalogue.row_of("posted") in larger.sources[2].retrieve(asked, 80).rows


def test_a_changed_source_is_a_changed_step(own: Own) -> None:
    from components.retrieval.fit import fit

    before, file = code_version(fit, str(own.file)), own.file.parent / "mypackage" / "sources.py"
    text = file.read_text()
    file.write_text(text.replace("1 + (", "2 + ("))
    try:
        assert code_version(fit, str(own.file)) != before
    finally:
        file.write_text(text)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("nowhere.sources:Session", UnknownName, "cannot be imported.*PYTHONPATH"),
        ("mypackage.sources:Sesion", UnknownName, "has no 'Sesion'"),
        ("mypackage.sources:Half", UnknownSource, "lacks reason, with_new_items"),
    ],
)
def test_a_path_that_names_no_source_is_refused_on_both_sides(own: Own, kind: str, error: type[Exception], message: str) -> None:
    for find in (source_class, fit_of):
        with pytest.raises(error, match=message):
            find(kind)
    wrong = replace(own.system, sources=(*own.system.sources[:2], SourceSpec(kind, 0.3)))
    with pytest.raises(error, match=message):
        Recommender(own.recommender.bundle, wrong)


def test_a_source_without_a_fit_says_what_to_add(own: Own) -> None:
    file = own.file.parent / "mypackage" / "unfit.py"
    file.write_text("from mypackage.sources import Session\n\nclass Unfit(Session):\n    fit = None\n")
    with pytest.raises(UnfittableSource, match="static method fit"):
        fit_of("mypackage.unfit:Unfit")
    shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)
