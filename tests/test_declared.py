"""What is imported is declared: a package that another one happens to bring may go with the next version of that one."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"feature_repo", "serving", "components", "pipelines", "tests", *sys.stdlib_module_names}


def name_of(text: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", text)
    assert found is not None
    return found[0].lower().replace("_", "-")


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """Top-level module and where it is imported, inside functions too."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            yield from ((module.partition(".")[0], f"{path.relative_to(ROOT)}:{node.lineno}") for module in modules)


def undeclared(folders: tuple[str, ...], extras: tuple[str, ...]) -> list[str]:
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    declared = {name_of(text) for group in groups for text in group}
    brought = packages_distributions()
    return [
        f"{place}: {module}"
        for folder in folders
        for module, place in imported(ROOT / folder)
        if module not in OWN and not {name_of(one) for one in brought.get(module, [module])} & declared
    ]


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (("serving",), ()),  # the image that answers has no more than these
        (("feature_repo", "components", "pipelines"), ("learn", "docker", "spark")),
        (("tests",), ("learn", "docker", "spark", "dev")),
    ],
    ids=["serving", "learning", "tests"],
)
def test_every_imported_package_is_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    assert undeclared(folders, extras) == []
