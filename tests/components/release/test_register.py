"""The registry knows each bundle once, who may answer, and what a candidate must beat."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.release import releases as releases
from components.release.refit import RefitRefused, adopt
from components.release.registry import ForeignVersion, RegistryUnavailable, UnknownBundle, open_registry
from components.release.rival import champion
from serving.system import load_system
from tests.components.release.made import Made, looks_like

SYSTEM = load_system("shop")


def registered(tmp_path: Path, home: Path, digest: str, ndcg: float, passed: bool = True, system=SYSTEM) -> dict:
    folder = tmp_path / "made" / digest
    made = looks_like(folder, digest, ndcg, passed) if not folder.exists() else None
    made = made or Made(folder / digest, folder / "users", folder / "metrics", folder / "gate")
    return made.register(tmp_path / "out", home, system=system)


def rival(tmp_path: Path, home: Path, name: str = "rival") -> str | None:
    champion(SYSTEM, tmp_path / name, home=str(home))
    return next((path.name for path in (tmp_path / name).iterdir()), None)


def test_the_first_is_champion_the_second_challenger_and_the_same_again_changes_nothing(tmp_path: Path, home: Path) -> None:
    assert rival(tmp_path, home) is None
    first = registered(tmp_path, home, "aaa", 0.2)
    assert (first["name"], first["version"], first["aliases"]) == ("shortlist-shop", "1", ["challenger", "champion"])
    second = registered(tmp_path, home, "bbb", 0.3)
    assert (second["version"], second["aliases"]) == ("2", ["challenger"])
    again = registered(tmp_path, home, "bbb", 0.3)
    assert again == second
    assert json.loads((tmp_path / "out" / "version.json").read_text()) == second
    assert rival(tmp_path, home) == "aaa"
    assert releases.released("shop", home) == releases.ReleasedBundle(home / "bundles" / "aaa", home / "users" / "aaa")


def test_where_the_system_says_so_what_passes_is_champion(tmp_path: Path, home: Path) -> None:
    system = replace(SYSTEM, promote="passed")
    registered(tmp_path, home, "aaa", 0.2, system=system)
    assert registered(tmp_path, home, "bad", 0.1, passed=False, system=system)["aliases"] == []
    assert releases.chosen("shop", home) == "aaa"
    second = registered(tmp_path, home, "bbb", 0.3, system=system)
    assert second["aliases"] == ["challenger", "champion"]
    assert releases.chosen("shop", home) == "bbb"


def test_a_word_that_is_no_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="system shop: promote is 'sometimes', expected one of 'passed', 'by hand'"):
        replace(SYSTEM, promote="sometimes")


def test_a_refused_bundle_is_recorded_but_no_version(tmp_path: Path, home: Path) -> None:
    refused = registered(tmp_path, home, "bad", 0.01, passed=False)
    assert (refused["version"], refused["aliases"], refused["passed"]) == (None, [], False)
    assert registered(tmp_path, home, "bad", 0.01, passed=False)["run"] == refused["run"]
    with pytest.raises(releases.NothingReleased, match="run `shortlist train shop` first"):
        releases.released("shop", home)
    assert releases.released("shop", home, home / "bundles" / "bad").users == home / "users" / "bad"


def test_a_person_moving_the_alias_decides_what_a_candidate_must_beat(tmp_path: Path, home: Path) -> None:
    registered(tmp_path, home, "aaa", 0.2)
    second = registered(tmp_path, home, "bbb", 0.3)
    with open_registry(home, "") as client:
        client.set_registered_model_alias("shortlist-shop", "champion", second["version"])
    assert rival(tmp_path, home) == "bbb"
    assert registered(tmp_path, home, "bbb", 0.3)["aliases"] == ["challenger", "champion"]
    assert releases.released("shop", home).bundle == home / "bundles" / "bbb"


def test_an_alias_on_a_foreign_version_is_left_there_and_said(tmp_path: Path, home: Path) -> None:
    registered(tmp_path, home, "aaa", 0.2)
    with open_registry(home, "") as client:
        foreign = client.create_model_version("shortlist-shop", source="s3://somewhere/else")
        client.set_registered_model_alias("shortlist-shop", "champion", foreign.version)
    second = registered(tmp_path, home, "bbb", 0.3)
    assert second["aliases"] == ["challenger"]
    assert second["remark"].startswith("the alias champion of shortlist-shop points at version 2, which names no bundle of ours")
    with open_registry(home, "") as client:
        assert client.get_model_version_by_alias("shortlist-shop", "champion").version == foreign.version
    assert releases.chosen("shop", home) == "aaa"
    assert rival(tmp_path, home) == "aaa"  # what answers is what would be replaced
    (home / "champion" / "shop.json").unlink()
    with pytest.raises(ForeignVersion, match="points at version 2"):
        champion(SYSTEM, tmp_path / "none", home=str(home))


def test_a_bundle_learnt_again_answers_but_its_judged_twin_is_what_must_be_beaten(tmp_path: Path, home: Path) -> None:
    registered(tmp_path, home, "aaa", 0.2)
    again = looks_like(tmp_path / "again", "all", 0.0)
    record = adopt(SYSTEM, again.bundle, again.users, again.gate, tmp_path / "out", judged="aaa", home=str(home))
    assert (record["version"], record["aliases"]) == ("2", ["challenger", "champion"])
    assert releases.released("shop", home).bundle == home / "bundles" / "all"
    assert rival(tmp_path, home) == "aaa"
    with open_registry(home, "") as client:
        version = client.get_model_version("shortlist-shop", "2")
    assert "Learnt again from all rows with the settings of bundle `aaa`" in version.description
    assert version.tags["gate.sentence"] == "Passed: NDCG@10 0.2."
    with pytest.raises(UnknownBundle, match="no version of bundle xyz"):
        adopt(SYSTEM, again.bundle, again.users, again.gate, tmp_path / "out", judged="xyz", home=str(home))


def test_a_bundle_learnt_again_that_answers_otherwise_than_its_twin_is_not_adopted(tmp_path: Path, home: Path) -> None:
    registered(tmp_path, home, "aaa", 0.2)
    again = looks_like(tmp_path / "again", "all", 0.0, passed=False)
    with pytest.raises(RefitRefused, match=r"not adopted: Refused: .* The judged bundle aaa stays"):
        adopt(SYSTEM, again.bundle, again.users, again.gate, tmp_path / "out", judged="aaa", home=str(home))
    assert releases.released("shop", home).bundle == home / "bundles" / "aaa"


def test_a_champion_whose_folder_is_gone_is_taken_from_the_registry(tmp_path: Path, home: Path, two: tuple[Made, Made]) -> None:
    from tests.components.release.made import TINY

    two[0].register(tmp_path / "out", home)
    (home / "bundles" / two[0].digest).rename(tmp_path / "elsewhere")
    champion(TINY, tmp_path / "rival", home=str(home))
    assert [path.name for path in (tmp_path / "rival").iterdir()] == [two[0].digest]


def test_a_registry_that_is_no_database_or_does_not_answer_is_a_sentence(tmp_path: Path, home: Path) -> None:
    (home / "mlflow.db").write_bytes(b"\x5a" * 8192)
    with pytest.raises(
        RegistryUnavailable, match=r"the registry at sqlite:.*/mlflow.db does not answer as it should .*start it or repair it"
    ):
        registered(tmp_path, home, "aaa", 0.2)
    with (
        pytest.raises(RegistryUnavailable, match=r"the registry at http://127.0.0.1:9 does not answer"),
        open_registry(None, "http://somebody:word@127.0.0.1:9") as client,
    ):
        client.search_registered_models()
