"""A person promotes, takes it back, and sees who was champion when."""

from pathlib import Path

import pytest

from components.release import releases
from components.release.promotion import history, promote, rollback
from components.release.registry import UnknownBundle, open_registry
from components.release.sync import sync
from tests.components.release.made import TINY, Made, looks_like

Two = tuple[Made, Made]


@pytest.fixture
def stocked(two: Two, home: Path, tmp_path: Path) -> Path:
    for made in two:
        made.register(tmp_path / "out", home)
    return home


def test_the_challenger_is_promoted_and_taken_back(stocked: Path, two: Two) -> None:
    first, second = two
    said = promote(TINY, stocked)
    assert said == f"Version 2 of shortlist-tiny answers (bundle {second.digest[:12]}); before, version 1 did."
    assert releases.chosen("tiny", stocked) == second.digest
    assert [(line.version, line.aliases, line.answers) for line in history(TINY, stocked)] == [
        ("2", ("challenger", "champion"), True),
        ("1", (), False),
    ]
    assert rollback(TINY, stocked).startswith("Version 1 of shortlist-tiny answers")
    assert releases.chosen("tiny", stocked) == first.digest
    with pytest.raises(UnknownBundle, match="no version of shortlist-tiny was champion before version 1"):
        rollback(TINY, stocked)
    assert all(line.since for line in history(TINY, stocked))


def test_rolling_back_twice_goes_two_back_however_the_alias_was_moved(stocked: Path, two: Two, tmp_path: Path) -> None:
    third = looks_like(tmp_path / "made", "c0ffee", 0.5)
    third.register(tmp_path / "out", stocked)
    promote(TINY, stocked, which="2")
    with open_registry(stocked, "") as client:  # by hand, of a bundle that lies here but nobody could answer from
        client.set_registered_model_alias("shortlist-tiny", "champion", "3")
    assert rollback(TINY, stocked).startswith("Version 2 ")
    assert rollback(TINY, stocked).startswith("Version 1 ")
    assert releases.chosen("tiny", stocked) == two[0].digest
    assert sync(TINY, stocked).digest == two[0].digest


def test_a_version_is_named_by_its_number_or_its_digest(stocked: Path, two: Two) -> None:
    promote(TINY, stocked, which=two[1].digest[:10])
    assert releases.chosen("tiny", stocked) == two[1].digest
    promote(TINY, stocked, which="1")
    assert releases.chosen("tiny", stocked) == two[0].digest
    for which, message in (("7", "has no version 7: it has 2, 1"), ("abc", "'abc' names 0 versions"), ("sha256:", "names 2 versions")):
        with pytest.raises(UnknownBundle, match=message):
            promote(TINY, stocked, which=which)


def test_what_cannot_answer_is_not_promoted(stocked: Path, two: Two, tmp_path: Path) -> None:
    looks_like(tmp_path / "made", "f00f00", 0.5).register(tmp_path / "out", stocked)
    with pytest.raises(ValueError, match="was downloaded and refused"):
        promote(TINY, stocked, which="3")
    with open_registry(stocked, "") as client:
        assert str(client.get_model_version_by_alias("shortlist-tiny", "champion").version) == "1"
    assert releases.chosen("tiny", stocked) == two[0].digest


def test_nothing_registered_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownBundle, match="nothing of tiny is registered under"):
        history(TINY, tmp_path)
