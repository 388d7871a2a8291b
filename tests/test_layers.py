"""The line: every folder imports only itself and those left of it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINE = ("feature_repo", "serving", "components", "pipelines")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full module name of every import in a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def breaches(root: Path) -> list[str]:
    """Every import of a folder to the right, as file:line: what."""
    found = []
    for place, folder in enumerate(LINE):
        for path in sorted((root / folder).rglob("*.py")):
            for line, module in imports(path):
                if module.partition(".")[0] in LINE[place + 1 :]:
                    found.append(f"{path.relative_to(root)}:{line}: {folder} imports {module}, which is right of it")
    return found


def test_every_folder_imports_only_itself_and_those_left_of_it() -> None:
    assert breaches(ROOT) == []


def test_an_import_to_the_right_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    for folder in LINE:
        (tmp_path / folder).mkdir()
    (tmp_path / "serving" / "app.py").write_text("import feature_repo\ndef late():\n    from pipelines import cli\n")
    assert breaches(tmp_path) == ["serving/app.py:3: serving imports pipelines, which is right of it"]
