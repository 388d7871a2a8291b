"""The doors: a framework is imported only where the design lets it in, and the server never loads what it does not need."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOORS = {  # framework -> files that may import it
    "kfp": ("components/step.py", "components/*/component.py", "pipelines/*.py"),
    "kserve": (),
    "kubernetes": ("components/release/kube.py",),
    "feast": ("feature_repo/*", "components/features/*", "tests/*"),
    "torch": ("components/retrieval/*", "components/ranking/*", "components/export/*", "components/together.py"),
    "onnxruntime": ("serving/*", "components/export/*"),
    "mlflow": ("components/release/*",),
    "great_expectations": ("components/data/validate.py",),
    "evidently": ("components/monitoring/*",),
}
NOT_SERVED = ("kubernetes", "pandas", "torch", "duckdb", "feast", "sklearn", "kfp", "mlflow", "great_expectations", "evidently", "ibis")


def imported(path: Path) -> list[tuple[int, str]]:
    """Line and top-level name of every import in a file, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.lineno, node.module.partition(".")[0]))
    return found


def sources() -> list[Path]:
    return [path for folder in ("feature_repo", "serving", "components", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_framework_comes_in_by_its_own_door() -> None:
    breaches = []
    for path in sources():
        place = path.relative_to(ROOT).as_posix()
        for line, name in imported(path):
            if name in DOORS and not any(fnmatch(place, door) for door in DOORS[name]):
                breaches.append(f"{place}:{line}: imports {name}, allowed only in {', '.join(DOORS[name])}")
    assert breaches == []


def test_serving_names_no_library_of_the_learning_side() -> None:
    breaches = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in sorted((ROOT / "serving").rglob("*.py"))
        for line, name in imported(path)
        if name in NOT_SERVED
    ]
    assert breaches == []


def test_the_wrappers_keep_their_annotations_readable_for_kfp() -> None:
    """`from __future__ import annotations` turns them into strings and `dsl.component` refuses them."""
    wrappers = sorted((ROOT / "components").glob("*/component.py"))
    assert len(wrappers) == 7
    assert [path.name for path in wrappers if "__future__" in path.read_text()] == []


def test_help_loads_nothing_heavy() -> None:
    """`shortlist --help` must be there at once: no command's library is imported for it."""
    code = "import sys, pipelines.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert set(loaded) & {*NOT_SERVED, "numpy", "pyarrow", "onnxruntime", "matplotlib"} == set()
