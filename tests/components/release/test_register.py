"""The registry knows each bundle once, who may answer, and what a candidate must beat."""

import json
from pathlib import Path

import pytest

from components.release import releases as releases
from components.release.refit import RefitRefused, adopt
from components.release.register import UnknownBundle, champion, open_registry, register
from serving.system import load_system

SYSTEM = load_system("shop")
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow on SQLAlchemy 2.1


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry's tables are made, which takes MLflow five seconds; copied for every test."""
    home = tmp_path_factory.mktemp("registry")
    with open_registry(home, ""):
        return home / "mlflow.db"


@pytest.fixture
def home(empty: Path, tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mlflow.db").write_bytes(empty.read_bytes())
    return tmp_path / "home"


def learnt(folder: Path, digest: str, ndcg: float, passed: bool = True) -> dict[str, Path]:
    """A bundle with its users, metrics and verdict."""
    bundle, users, metrics, gate = (folder / digest / name for name in (digest, "users", "metrics", "gate"))
    for made in (bundle, users, metrics, gate):
        made.mkdir(parents=True)
    (bundle / "bundle.json").write_text(
        json.dumps({"settings": {"answer": 10}, "span": ["2017-01-01", "2017-11-27"], "code_version": "c0de"})
    )
    (users / "meta.json").write_text("{}")
    judged = {who: {"ndcg@10": {"value": value}} for who, value in (("candidate", ndcg), ("popularity", 0.1))}
    (metrics / "metrics.json").write_text(json.dumps({"protocols": {"all": {"recommenders": judged}}, "bundle": digest}))
    (gate / "gate.json").write_text(json.dumps({"passed": passed, "sentence": f"{'Passed' if passed else 'Refused'}: NDCG@10 {ndcg}."}))
    return {"bundle": bundle, "users": users, "metrics": metrics, "gate": gate}


def registered(tmp_path: Path, home: Path, digest: str, ndcg: float, passed: bool = True) -> dict:
    made = learnt(tmp_path / "made", digest, ndcg, passed) if not (tmp_path / "made" / digest).exists() else None
    made = made or {name: tmp_path / "made" / digest / name for name in ("users", "metrics", "gate")} | {
        "bundle": tmp_path / "made" / digest / digest
    }
    return register(SYSTEM, **made, out=tmp_path / "out", home=str(home))


def test_the_first_is_champion_the_second_challenger_and_the_same_again_changes_nothing(tmp_path: Path, home: Path) -> None:
    assert champion(SYSTEM, str(home)) is None
    first = registered(tmp_path, home, "aaa", 0.2)
    assert (first["name"], first["version"], first["aliases"]) == ("shortlist-shop", "1", ["challenger", "champion"])
    second = registered(tmp_path, home, "bbb", 0.3)
    assert (second["version"], second["aliases"]) == ("2", ["challenger"])
    again = registered(tmp_path, home, "bbb", 0.3)
    assert again == second
    assert json.loads((tmp_path / "out" / "version.json").read_text()) == second
    assert champion(SYSTEM, str(home)) == home / "bundles" / "aaa"
    assert releases.released("shop", home) == releases.ReleasedBundle(home / "bundles" / "aaa", home / "users" / "aaa")


def test_a_refused_bundle_is_recorded_but_no_version(tmp_path: Path, home: Path) -> None:
    refused = registered(tmp_path, home, "bad", 0.01, passed=False)
    assert (refused["version"], refused["aliases"], refused["passed"]) == (None, [], False)
    assert registered(tmp_path, home, "bad", 0.01, passed=False)["run"] == refused["run"]
    with pytest.raises(releases.NothingReleased, match="run `shortlist train shop` first"):
        releases.released("shop", home)
    assert releases.released("shop", home, home / "bundles" / "bad").users == home / "users" / "bad"


def test_the_run_holds_settings_metrics_plot_span_and_digest(tmp_path: Path, home: Path) -> None:
    record = registered(tmp_path, home, "aaa", 0.25)
    with open_registry(home, "") as client:
        run = client.get_run(record["run"])
        files = {file.path for file in client.list_artifacts(record["run"])}
    assert run.data.metrics["protocols.all.recommenders.candidate.ndcg_10.value"] == 0.25
    assert run.data.params == {"system.answer": "10", "code_version": "c0de"}
    assert run.data.tags["bundle"] == "aaa"
    assert run.data.tags["gate.sentence"] == "Passed: NDCG@10 0.25."
    assert run.data.tags["data.span"] == '["2017-01-01", "2017-11-27"]'
    assert files == {"evaluation", "metrics.png"}


def test_a_person_moving_the_alias_decides_what_a_candidate_must_beat(tmp_path: Path, home: Path) -> None:
    registered(tmp_path, home, "aaa", 0.2)
    second = registered(tmp_path, home, "bbb", 0.3)
    with open_registry(home, "") as client:
        client.set_registered_model_alias("shortlist-shop", "champion", second["version"])
    assert champion(SYSTEM, str(home)) == home / "bundles" / "bbb"
    assert registered(tmp_path, home, "bbb", 0.3)["aliases"] == ["challenger", "champion"]
    assert releases.released("shop", home).bundle == home / "bundles" / "bbb"


def test_a_bundle_learnt_again_answers_but_its_judged_twin_is_what_must_be_beaten(tmp_path: Path, home: Path) -> None:
    registered(tmp_path, home, "aaa", 0.2)
    again = learnt(tmp_path / "again", "all", 0.0)
    record = adopt(SYSTEM, again["bundle"], again["users"], again["gate"], tmp_path / "out", judged="aaa", home=str(home))
    assert (record["version"], record["aliases"]) == ("2", ["challenger", "champion"])
    assert releases.released("shop", home).bundle == home / "bundles" / "all"
    assert champion(SYSTEM, str(home)) == home / "bundles" / "aaa"
    with pytest.raises(UnknownBundle, match="no version of bundle xyz"):
        adopt(SYSTEM, again["bundle"], again["users"], again["gate"], tmp_path / "out", judged="xyz", home=str(home))


def test_a_bundle_learnt_again_that_answers_otherwise_than_its_twin_is_not_adopted(tmp_path: Path, home: Path) -> None:
    registered(tmp_path, home, "aaa", 0.2)
    again = learnt(tmp_path / "again", "all", 0.0, passed=False)
    with pytest.raises(RefitRefused, match=r"not adopted: Refused: .* The judged bundle aaa stays"):
        adopt(SYSTEM, again["bundle"], again["users"], again["gate"], tmp_path / "out", judged="aaa", home=str(home))
    assert releases.released("shop", home).bundle == home / "bundles" / "aaa"


def test_a_champion_whose_folder_is_gone_is_named(tmp_path: Path, home: Path) -> None:
    registered(tmp_path, home, "aaa", 0.2)
    (home / "bundles" / "aaa").rename(tmp_path / "elsewhere")
    with pytest.raises(UnknownBundle, match="the champion of shop is bundle aaa"):
        champion(SYSTEM, str(home))
