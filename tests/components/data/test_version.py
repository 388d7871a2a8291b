"""What an ingest reads is a version its author can name; nobody's word is taken for what nobody said."""

import sys
from pathlib import Path

import pytest

from components.code_digest import SourceNotFound
from components.data.version import BadFingerprint, source_version

ROOT = Path(__file__).parents[3]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path, with a system whose ingest is `till:receipts` in it."""
    text = (ROOT / "tests" / "world" / "system.py").read_text()
    (tmp_path / "system.py").write_text(text.replace("tests.world.generate:ingest", "till:receipts"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts in one second are two texts
    yield tmp_path
    sys.modules.pop("till", None)


def version_with(folder: Path, text: str) -> str | None:
    (folder / "till.py").write_text(text)
    sys.modules.pop("till", None)
    return source_version(str(folder / "system.py"))


READS = "def receipts(out): pass\n"


def test_the_version_is_what_the_fingerprint_says_and_the_code_that_reads(own: Path) -> None:
    monday = version_with(own, READS + "def fingerprint(): return 'monday'\n")
    assert monday
    assert version_with(own, READS + "def fingerprint(): return 'monday'\n") == monday
    assert version_with(own, READS + "def fingerprint(): return 'tuesday'\n") != monday
    assert version_with(own, "# reads otherwise\n" + READS + "def fingerprint(): return 'monday'\n") != monday


def test_without_a_fingerprint_nobody_knows_and_a_given_folder_needs_none(own: Path) -> None:
    assert version_with(own, READS) is None
    assert source_version(str(own / "system.py"), data="/some/where") == ""


def test_a_fingerprint_that_says_nothing_is_refused(own: Path) -> None:
    with pytest.raises(BadFingerprint, match=r"till.py: fingerprint\(\) gave None"):
        version_with(own, READS + "def fingerprint(): pass\n")


def test_an_ingest_that_is_nowhere_is_named(own: Path) -> None:
    with pytest.raises(SourceNotFound, match="the system world names its ingest 'till:receipts', but there is no module 'till'"):
        source_version(str(own / "system.py"))
    with pytest.raises(SourceNotFound, match=r"till.py has no function 'receipts'"):
        version_with(own, "def other(out): pass\n")


def test_the_grocerys_package_names_its_version() -> None:
    assert source_version("shop") == source_version("shop") != None  # noqa: E711
