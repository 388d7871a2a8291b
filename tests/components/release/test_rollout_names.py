"""A registry's aliases as a rollout moves them, also where versions were deleted on the way."""

from pathlib import Path

import pytest

from components.release.registry import CHALLENGER, CHAMPION, open_registry
from components.release.rollout import Named, Unreachable
from components.release.rollout_names import WHY, Registry
from components.release.rollout_state import BundleRef
from tests.components.release.made import TINY, Made

NAME = "shortlist-tiny"


@pytest.fixture
def refs(two: tuple[Made, Made], home: Path, tmp_path: Path) -> tuple[BundleRef, BundleRef]:
    """Versions 1 and 2: the champion, and what has just been promoted over it."""
    for made in two:
        made.register(tmp_path / "out", home)
    with open_registry(home, "") as client:
        client.set_registered_model_alias(NAME, CHAMPION, "2")
        client.set_registered_model_alias(NAME, CHALLENGER, "2")
    old, new = (BundleRef(made.digest, str(at)) for at, made in enumerate(two, 1))
    return old, new


def deleted(home: Path, version: str) -> None:
    with open_registry(home, "") as client:
        client.delete_model_version(NAME, version)


def test_the_old_champion_is_champion_again_and_the_new_ones_version_says_why(refs: tuple[BundleRef, BundleRef], home: Path) -> None:
    old, new = refs
    registry = Registry(TINY, home)
    registry.restore(old, new, "clicks: fewer")
    assert registry.named() == Named(old, None)
    with open_registry(home, "") as client:
        assert client.get_model_version(NAME, "2").tags[WHY] == "clicks: fewer"


def test_a_deleted_old_champion_leaves_the_system_without_one_rather_than_with_a_withdrawn_one(
    refs: tuple[BundleRef, BundleRef], home: Path
) -> None:
    deleted(home, "1")
    registry = Registry(TINY, home)
    registry.restore(*refs, "clicks: fewer")
    assert registry.named() == Named(None, None)


def test_a_withdrawn_bundle_whose_version_is_gone_stops_nobody(refs: tuple[BundleRef, BundleRef], home: Path) -> None:
    deleted(home, "2")
    registry = Registry(TINY, home)
    registry.restore(*refs, "clicks: fewer")
    assert registry.named() == Named(refs[0], None)


def test_nobody_is_crowned_without_a_version(refs: tuple[BundleRef, BundleRef], home: Path) -> None:
    with pytest.raises(Unreachable, match="has no version of bundle ffff"):
        Registry(TINY, home).crown(BundleRef("f" * 64))
