"""The line: every folder imports only itself and those left of it; the rooms of `serving/` likewise, and no modules import in a circle."""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINE = ("feature_repo", "serving", "components", "pipelines")
# The rooms of serving/, each importing only to its left. Files at the root of serving/ tell a request's life and are free.
ROOMS = (
    "native", "bundle", "state", "rules", "events", "retrieval", "systems", "telemetry", "ranking", "exposures", "new_items", "resilience",
    "http", "split", "worker",
)  # fmt: skip


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import in a file, inside functions too; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def breaches(root: Path, line: tuple[str, ...], inside: str = "") -> list[str]:
    """Every import of a folder to the right, as file:line: what. `inside`: the package that holds the folders."""
    found = []
    for place, folder in enumerate(line):
        right = {f"{inside}{name}" for name in line[place + 1 :]}
        depth = inside.count(".") + 1
        for path in sorted((root / inside.replace(".", "/") / folder).rglob("*.py")):
            for number, module in imports(path):
                if ".".join(module.split(".")[:depth]) in right:
                    told = f"{path.relative_to(root)}:{number}: {folder} imports {module}, which is right of it"
                    if not found or not told.startswith(found[-1].partition(" imports")[0]):
                        found.append(told)
    return found


def room(module: str) -> str:
    """A room of `serving/`, a module at its root, or another of the four folders."""
    return ".".join(module.split(".")[: 2 if module.startswith("serving.") else 1])


def circles(root: Path, of: Callable[[str], str] = str) -> list[list[str]]:
    """Sets of modules, or of what they are `of`, that import each other, however far around."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in LINE
        for path in (root / folder).rglob("*.py")
    }
    reach: dict[str, set[str]] = defaultdict(set)
    for module, path in files.items():
        reach[of(module)] |= {of(name) for _, name in imports(path) if name in files} - {of(module)}
    for _ in files:
        grown = {module: found.union(*(reach[name] for name in found)) for module, found in reach.items()}
        if grown == reach:
            break
        reach = grown
    return [list(one) for one in sorted({tuple(sorted(o for o in reach[m] if m in reach[o])) for m in reach if m in reach[m]})]


@pytest.mark.parametrize(("line", "inside"), [(LINE, ""), (ROOMS, "serving.")], ids=["folders", "rooms"])
def test_every_folder_imports_only_itself_and_those_left_of_it(line: tuple[str, ...], inside: str) -> None:
    assert breaches(ROOT, line, inside) == []


def test_every_room_has_its_place_in_the_order() -> None:
    assert sorted(ROOMS) == sorted(path.name for path in (ROOT / "serving").iterdir() if path.is_dir() and any(path.glob("*.py")))


@pytest.mark.parametrize("of", [str, room])
def test_nothing_imports_in_a_circle(of: Callable[[str], str]) -> None:
    assert circles(ROOT, of) == []


def test_an_import_to_the_right_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    for folder in LINE:
        (tmp_path / folder).mkdir()
    (tmp_path / "serving" / "app.py").write_text("import feature_repo\ndef late():\n    from pipelines import cli\n")
    assert breaches(tmp_path, LINE) == ["serving/app.py:3: serving imports pipelines, which is right of it"]


def test_a_circle_is_found_through_a_function(tmp_path: Path) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "a.py").write_text("from serving import b\n")
    (tmp_path / "serving" / "b.py").write_text("def late():\n    from serving.a import x\n")
    (tmp_path / "serving" / "c.py").write_text("from serving import a\n")
    assert circles(tmp_path) == [["serving.a", "serving.b"]]
