"""Which source files a step runs, and on what: the code version that its result is filed under.

The files are found by reading imports, not by running them: the function's module, every module of ours or the user's it imports at any
depth, the whole of a package of ours that is imported as a package (its modules are loaded by name), and the C sources of the loops.
Nothing else, so that a change in the server does not undo a night of training. Beside them stand Python's version and the version of
every package that learning resolves to (`components/requirements.lock` names them).
"""

import ast
import hashlib
import importlib.util
import inspect
import platform
import re
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("feature_repo", "serving", "components", "pipelines")
ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the four packages
LOCK = Path(__file__).resolve().parent / "requirements.lock"  # what learning resolves to


class SourceNotFound(ValueError):
    """A system names code that is nowhere; the message says which."""


def code_digest(function: Callable[..., object], *also: Path) -> str:
    """Hex digest of the sources `function` and the files in `also` reach (of folders: all .py and .yaml), of Python and the packages."""
    total = hashlib.sha256(f"python {platform.python_version()}\n".encode())
    total.update(sources_digest([Path(inspect.getfile(function)).resolve(), *_sources(also)]).encode())
    for name in _learn_group():
        total.update(f"{name}=={_version(name)}\n".encode())
    return total.hexdigest()


def sources_digest(starts: Iterable[Path]) -> str:
    """Hex digest of the names and contents of all files these reach."""
    total = hashlib.sha256()
    for line in sorted(f"{_name(path)}\0{_content(path)}\n" for path in reached(*starts)):
        total.update(line.encode())
    return total.hexdigest()


def module_file(module: str, named_by: str) -> Path:
    """The source file of a module, wherever Python finds it. Raises `SourceNotFound`; `named_by` says who wants it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a parent that is not there, or is no package
        spec = None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        raise SourceNotFound(f"{named_by}, but there is no module {module!r}: correct the name, or run where Python finds it")
    return Path(spec.origin).resolve()


def reached(*starts: Path) -> frozenset[Path]:
    """The starts and every source file, ours or the user's, that they import, at any depth."""
    found: set[Path] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(_imported(path, path.stat().st_mtime_ns) if path.suffix == ".py" else ())
    return frozenset(found)


@cache
def _imported(path: Path, changed_ns: int) -> tuple[Path, ...]:
    """The files one file imports, also inside functions; `changed_ns` keeps what was read of an older text apart."""
    return tuple(file for name in _names(path) for file in _files(name, path))


def _names(path: Path) -> Iterator[str]:
    """Full names of the modules a file imports; of `from a import b` both `a` and `a.b`."""
    package = _package_of(path)
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _files(module: str, importer: Path) -> Iterator[Path]:
    """The files of a module of ours or the user's; a package below our four stands for everything in it, its C sources too."""
    top, *rest = module.split(".")
    for root in _roots(top, importer):
        path = root.joinpath(top, *rest)
        if top not in PACKAGES:  # importing a.b.c runs a, then b, then c
            holders = (root.joinpath(top, *rest[:depth], "__init__.py") for depth in range(len(rest) + 1))
            yield from (file for file in holders if file.is_file())
        if path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
        elif rest and path.is_dir() and top in PACKAGES and path.parent != ROOT / "components":
            yield from path.glob("*.py")
        if top == "serving" and path.parent.joinpath("_kernel.pyx").is_file():
            yield from (file for file in path.parent.iterdir() if file.suffix in (".c", ".h", ".pyx"))


def _roots(top: str, importer: Path) -> Iterator[Path]:
    """Where a top-level name may lie: ours in our folder, the importer's own package beside it, others on the user's search path."""
    if top in PACKAGES:
        yield ROOT
        return
    package = _package_of(importer)
    if package and package[0] == top:
        yield importer.parents[len(package)]
    yield from (place for place in _search_path(tuple(sys.path)) if (place / top).is_dir() or (place / f"{top}.py").is_file())


@cache
def _search_path(entries: tuple[str, ...]) -> tuple[Path, ...]:
    """The folders of the search path that hold no installed packages: those are known by their versions."""
    installed = [Path(place).resolve() for place in {*sysconfig.get_paths().values(), *site.getsitepackages()}]
    places = [Path(entry or ".").resolve() for entry in entries]
    return tuple(place for place in places if place.is_dir() and not any(place.is_relative_to(other) for other in installed))


def _package_of(path: Path) -> tuple[str, ...]:
    """Names of the packages that hold the file, outermost first."""
    names: list[str] = []
    for folder in path.parents:
        if not (folder / "__init__.py").is_file():
            break
        names.insert(0, folder.name)
    return tuple(names)


def _sources(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (file.resolve() for file in path.rglob("*") if file.suffix in (".py", ".yaml", ".yml"))
        elif path.is_file():
            yield path.resolve()
        else:
            raise SourceNotFound(f"{path} is neither a file nor a folder: a step's code is part of its key, so it must be there")


def _name(path: Path) -> str:
    """A name that is the same on every machine: the path below our root, or the file's own name."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _learn_group() -> tuple[str, ...]:
    """Names of the packages that learning resolves to."""
    if not LOCK.is_file():
        raise SourceNotFound(f"{LOCK} is missing: it names the packages whose versions a result is filed under; install this project again")
    return tuple(re.findall(r"^([A-Za-z0-9._-]+)==", LOCK.read_text(), re.MULTILINE))


@cache
def _version(library: str) -> str:
    try:
        return version(library).partition("+")[0]  # 2.13.0+cpu computes what 2.13.0 does
    except PackageNotFoundError:
        return "absent"
