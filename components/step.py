"""One step of the loop: run once per content of its inputs, never half, and give back what it read, wrote and set aside.

A result is filed under `<home>/steps/<name>/<key>/`, where the key is a digest of the step's name, the content of its inputs, its
settings, the version of what it reads besides, and the code it runs. It is made in a folder beside that place and renamed into it when
complete, under a lock: a killed run leaves nothing that counts, and two runs at once compute a key once. Without a home (a pod of a
cluster, where Kubeflow caches) the work is done straight into the output folder.
"""

import faulthandler
import fcntl
import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.code_digest import ROOT, SourceNotFound, code_digest, module_file
from serving.system import System, load_system

IMAGE = "dev.local/shortlist-python:0.1.0"  # made by `make images`; holds this package, so a step installs nothing
Record = dict[str, Any]


def component(function: Callable[..., bool | None]) -> Any:
    """Our one KFP decorator: every step runs in the same image and installs nothing when it starts."""
    from kfp import dsl

    return dsl.component(function, base_image=IMAGE, install_kfp_package=False, packages_to_install=[])


class NoBundle(ValueError):
    """The pack step's output does not hold exactly one bundle."""


def run_step(
    name: str,
    function: Callable[..., object],
    inputs: Mapping[str, Path | str | None],
    out: Path | str,
    config: Mapping[str, Any],
    home: Path | str | None,
    version: str | None = "",
) -> Record:
    """Have `function(system, **inputs, out=…, **settings)` done, or find it done, and put the result at `out`.

    `config["system"]` names the system; the rest of `config` are the settings. `version`: of what the function reads besides its inputs;
    None when nobody can tell, so that it is done anew each time and filed under what came of it. Returns the step's record; the same
    record lies beside `out` as `<out>.record.json`. An error of the function passes through, after its message is kept as
    `<out>.error.txt`.
    """
    out = Path(out)
    _end_in_time()
    given = {kind: None if path is None else Path(path) for kind, path in inputs.items()}
    print(f"step={name} state=started", flush=True)
    with told(out):
        if home:
            folder, record = _filed(name, function, given, config, version, Path(home), _beside(out, "refused"))
            _place(folder / "out", out)
        else:
            out.mkdir(exist_ok=True)
            record = _work(name, function, given, out, config)
    _beside(out, "record.json").write_text(json.dumps(record, indent=1, sort_keys=True))
    print(_event(record), flush=True)
    return record


@contextmanager
def told(out: Path | str) -> Iterator[None]:
    """Keep a refusal's message as `<out>.error.txt`: where the step is a process of its own, that is how its message is read."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except ValueError as problem:
        _beside(out, "error.txt").write_text(f"{type(problem).__module__}.{type(problem).__qualname__}\n{problem}")
        raise


def _filed(
    name: str,
    function: Callable[..., object],
    inputs: Mapping[str, Path | None],
    config: Mapping[str, Any],
    version: str | None,
    home: Path,
    refused: Path,
) -> tuple[Path, Record]:
    """The folder of this step's key, made now if it is not there; and its record. What a refusing step left goes to `refused`."""
    contents = {kind: digest_of(path) if path else "" for kind, path in sorted(inputs.items())}
    code = code_version(function, config["system"])
    settings = {kind: value for kind, value in config.items() if kind != "system"}
    filed = {"step": name, "inputs": contents, "settings": settings, "code": code, "version": version}
    key = _digest(filed)[:24]
    shelf = home / "steps" / name
    shelf.mkdir(parents=True, exist_ok=True)
    with _locked(shelf / f"{key}.lock"):
        final, partial = shelf / key, shelf / f"{key}.partial"
        if final.is_dir():
            return final, json.loads((final / "record.json").read_text()) | {"resumed": True, "seconds": 0.0}
        shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
        (partial / "out").mkdir(parents=True)
        try:
            record = _work(name, function, inputs, partial / "out", config)
        except ValueError:
            shutil.move(partial / "out", refused)  # its report may say more than its message
            partial.rmdir()
            raise
        output = digest_of(partial / "out")
        if version is None:
            key = _digest({**filed, "output": output})[:24]
            final = shelf / key
        record |= {"key": key, "code": code, "inputs": contents, "settings": settings, "version": version, "output": output}
        if final.is_dir():  # read anew, and it was the same
            shutil.rmtree(partial)
        else:
            (partial / "record.json").write_text(json.dumps(record, indent=1, sort_keys=True, default=str))
            partial.rename(final)
    return final, record


def _end_in_time() -> None:
    """In a pod: end the process, and say where it stood, after the minutes that the cluster's table of needs gives this step.

    Kubeflow's own deadline (`activeDeadlineSeconds`) says nothing of what was going on.
    """
    if minutes := os.environ.get("SHORTLIST_STEP_MINUTES", ""):
        faulthandler.dump_traceback_later(60 * float(minutes), exit=True)


def _work(name: str, function: Callable[..., object], inputs: Mapping[str, Path | None], out: Path, config: Mapping[str, Any]) -> Record:
    """Call the function and count the rows it read, wrote and set aside."""
    settings = {kind: value for kind, value in config.items() if kind != "system"}
    started = time.monotonic()
    print(f"step={name} state=working", flush=True)
    try:
        function(load_system(config["system"]), **inputs, out=out, **settings)
    except SystemExit as problem:  # a library's idea (pyspark under `python -c`): half a step must not look like a whole one
        raise RuntimeError(f"step {name} tried to end the process with {problem.code}") from problem
    seconds = round(time.monotonic() - started, 1)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # of this process so far: a step's own where it has one
    return {"step": name, "rows": _rows(inputs, out), "seconds": seconds, "peak_mb": peak_mb, "resumed": False}


def code_version(function: Callable[..., object], system: str) -> str:
    """Digest of the code this step runs for this system: reached sources, the system's own file, Feast repo, sources and rules.

    Raises `components.code_digest.SourceNotFound` when one of them is not there.
    """
    found = load_system(system)
    repo = ROOT / found.feature_repo
    if not repo.is_dir():
        raise SourceNotFound(f"the system {system} names the feature repo {repo}, which is no folder: correct feature_repo in its file")
    file = Path(system).resolve() if system.endswith(".py") else ROOT / "serving" / "systems" / f"{system}.py"
    return code_digest(function, file, repo, *_own_code(found))


def _own_code(system: System) -> Iterator[Path]:
    """The files of the sources, rules and cross features that a system file names by module."""
    for kind in (*system.kinds, *(rule.kind for rule in system.rules), *system.learning.cross):
        if ":" in kind:
            yield module_file(kind.partition(":")[0], f"the system {system.name} names {kind!r}")


def digest_of(path: Path) -> str:
    """Hex digest of a file's bytes, or of a folder's relative paths and bytes."""
    if path.is_file():
        return _file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _digest([[file.relative_to(path).as_posix(), digest_of(file)] for file in files])


_known: dict[tuple[str | int, ...], str] = {}  # digests of files seen in this process, by path, size, times and number


def _file_digest(path: Path) -> str:
    found = path.stat()
    name = (str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)  # a copy may keep its mtime
    if name not in _known:
        with path.open("rb") as file:
            _known[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return _known[name]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock; the system frees it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _place(folder: Path, out: Path) -> None:
    """Make `out` the same tree as `folder`: by hard links, or by copies where the two lie on different file systems."""
    if out.is_dir():
        shutil.rmtree(out)
    elif out.exists():
        out.unlink()
    shutil.copytree(folder, out, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(f"{out.name}.{suffix}")


def _rows(inputs: Mapping[str, Path | None], out: Path) -> dict[str, int]:
    """Rows of all tables read, written, and set aside (those under `quarantine/`)."""
    given = [table for path in inputs.values() if path for table in path.rglob("*.parquet")]
    made = list(out.rglob("*.parquet"))
    aside = [table for table in made if "quarantine" in table.relative_to(out).parts]
    return {
        "in": sum(map(_count, (table for table in given if "quarantine" not in table.parts))),
        "out": sum(map(_count, made)) - sum(map(_count, aside)),
        "set_aside": sum(map(_count, aside)),
    }


def _count(table: Path) -> int:
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(table).num_rows)


def _event(record: Record) -> str:
    """The step's line in the log."""
    rows = record["rows"]
    counts = f"rows_in={rows['in']} rows_out={rows['out']} rows_set_aside={rows['set_aside']} peak_mb={record.get('peak_mb', '-')}"
    state = "resumed" if record["resumed"] else "done"
    return f"step={record['step']} state={state} key={record.get('key', '-')} {counts} seconds={record['seconds']}"


def bundle_in(packed: Path | str) -> Path:
    """The one bundle in a pack step's output. Raises `NoBundle` when there is none, or more than one."""
    found = sorted(path for path in Path(packed).iterdir() if path.is_dir())
    if len(found) != 1:
        raise NoBundle(f"{packed} holds {len(found)} bundles, expected one: run the pack step again")
    return found[0]


def rival_in(found: Path | str, other_than: str = "") -> Path | None:
    """What the registry gave to the step `champion` or `start`; None when that is nothing, or the bundle named `other_than`."""
    return next((path for path in Path(found).iterdir() if path.is_dir() and path.name != other_than), None)


def users_of(features: Path | str) -> Path:
    """The users of the last cut in a features step's output: those that go live with its bundle."""
    return max(path for path in Path(features, "cuts").iterdir() if path.is_dir()) / "users"
