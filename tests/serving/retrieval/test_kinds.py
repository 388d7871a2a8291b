"""A kind is known in its own modules, the two registries and system files: nobody else asks for one by name."""

import ast
from pathlib import Path

import pytest

from components.retrieval.twins import FITS, LEARNERS
from serving.recommender import Recommender
from serving.retrieval.source import Explained
from serving.retrieval.sources import PARTS, SOURCES, source_class
from tests.serving.tiny_bundle import load_tiny, system

ROOT = Path(__file__).parents[3]
ITS_OWN = {f"{side}/retrieval/{kind}.py" for side in ("serving", "components") for kind in SOURCES}
REGISTRIES = {"serving/retrieval/sources.py", "components/retrieval/twins.py"}
RUNG = ("serving/resilience/ladder.py", "serving/recommender.py")  # the rung of this name: the first source that is Explained


def named(path: Path) -> set[str]:
    """Kinds that a file writes as texts."""
    return {node.value for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Constant) and node.value in SOURCES}


def test_no_kind_is_named_elsewhere() -> None:
    files = [path for folder in ("feature_repo", "serving", "components", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): named(path) for path in files}
    others = {name: kinds for name, kinds in found.items() if kinds and name not in ITS_OWN | REGISTRIES and "/systems/" not in name}
    assert others == {name: {"linear"} for name in RUNG}


def test_every_source_has_its_twin_and_every_twin_its_source() -> None:
    assert sorted([*FITS, *LEARNERS]) == sorted(SOURCES)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_fills_in_the_whole_interface_itself(kind: str) -> None:
    found = source_class(kind)
    assert [part for part in PARTS if part not in vars(found)] == []


def test_what_only_some_can_is_their_own(tmp_path: Path) -> None:
    sources = Recommender(load_tiny(tmp_path), system()).sources
    assert [source.spec.kind for source in sources if isinstance(source, Explained)] == ["linear"]
    assert [kind for kind, found in SOURCES.items() if hasattr(found, "history_embedding")] == ["two_tower"]
