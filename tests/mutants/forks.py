"""Whether tests notice a fault: a fork for each faulty text of a module, of a process that has loaded the libraries and nothing of ours.

No file is changed: a child imports the faulty text in the module's place, with the compiled loops off, runs the module's tests until the
first that fails, and ends.
"""

import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_loader
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from types import CodeType, ModuleType

import pytest

from tests.mutants.modules import Module

_OURS = ("serving", "components", "feature_repo", "pipelines", "tests", "conftest", "__main__")
_PYTEST = (
    *("-x", "-q", "--tb=no", "--hypothesis-profile=ci", "-m", "not slow and not docker", "-W", "ignore:Module already imported"),
    *("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:xdist", "-p", "no:xdist.looponfail"),
)
_VERDICTS = (0, 1, 2)  # passed, failed, or could not even be imported
_LEAST_CPU_SECONDS, _TIMES_SLOWER, _MOST_CPU_SECONDS = 10, 5, 300  # a fault that makes a loop endless is noticed too


class FaultyModule(MetaPathFinder, SourceFileLoader):
    """Imports another text in one module's place."""

    def __init__(self, path: str, text: Path) -> None:
        super().__init__(path.removesuffix(".py").replace("/", "."), str(Path(path).resolve()))
        self._text = text

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._text.read_bytes(), self.path, "exec", dont_inherit=True)


def passes(module: Module, folder: Path, finder: FaultyModule) -> int:
    """Pytest's exit status of the module's tests, with another text in the module's place."""
    sys.meta_path.insert(0, finder)
    from serving.native import kernel

    kernel.use(False)
    return int(pytest.main([*_PYTEST, f"--basetemp={folder / str(os.getpid())}", *module.tests]))


def forked(work: Callable[[], int], cpu_seconds: int) -> tuple[bool, float]:
    """Whether a child's tests pass, and the CPU they took. A child that uses more than `cpu_seconds` is ended: it does not pass.

    Raises `RuntimeError` where pytest could not run them at all.
    """
    child = os.fork()
    if not child:
        _work_silently(work, cpu_seconds)
    _, status, used = os.wait4(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) not in _VERDICTS:
        raise RuntimeError(f"expected pytest to end with one of {_VERDICTS}, got {os.WEXITSTATUS(status)}: run it by hand")
    return status == 0, used.ru_utime + used.ru_stime


def _work_silently(work: Callable[[], int], cpu_seconds: int) -> None:
    status = 70
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        signal.alarm(10 * cpu_seconds)  # one that waits uses no CPU
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        status = work()
    finally:
        os._exit(status)


def _load_libraries(module: Module, folder: Path) -> float:
    """Import the packages that the module's tests import, none of ours; the tests' CPU seconds. Raises `RuntimeError` where they fail."""
    told, unchanged = folder / "loaded", FaultyModule(module.path, Path(module.path))

    def work() -> int:
        status = passes(module, folder, unchanged)
        told.write_text("\n".join(name for name in sys.modules if name.partition(".")[0] not in _OURS))
        return status

    passed, seconds = forked(work, _MOST_CPU_SECONDS)
    if not passed:
        raise RuntimeError(f"{module.path}: its tests fail as they are: pytest {' '.join(module.tests)}")
    for name in told.read_text().split("\n"):
        if name not in sys.modules:
            with suppress(ImportError):  # some were made by another module's import
                importlib.import_module(name)
    return seconds


def verdicts(module: Module, texts: Sequence[str], ends: float) -> list[bool]:
    """Whether each text was noticed in the module's place, of those begun before the moment `ends` of the monotonic clock."""
    found: list[bool] = []
    if monotonic() > ends:
        return found
    with TemporaryDirectory(prefix="mutants-") as place:
        folder = Path(place)
        limit = _LEAST_CPU_SECONDS + int(_TIMES_SLOWER * _load_libraries(module, folder))
        for number, text in enumerate(texts):
            if monotonic() > ends:
                break
            faulty = folder / f"{number}.py"
            faulty.write_text(text)
            passed, _ = forked(partial(passes, module, folder, FaultyModule(module.path, faulty)), limit)
            found.append(not passed)
    return found
