"""The bundle: one folder, written once, named by the digest of its content; loading refuses any other content.

Layout (each part a file or a folder):

    bundle.json              digest of every file, system, feature schema, data span, code version, metrics, parents
    item_table/              `serving.bundle.catalogue.Catalogue`
    halves/                  per item arrays of the rankers
    request/                 `serving.ranking.user_side.Standard`
    layers/<ranker>/         `serving.ranking.layers.Layers`
    layers/request/          `serving.ranking.user_side.UserLayers`
    sources/<kind>/          what `serving/retrieval/<kind>.py` loads
    request.onnx light.onnx heavy.onnx item.onnx
    fallback/                `serving.bundle.fallback.Fallback`
    bundle.sig               who packed it, where that was said: `serving.bundle.signature`; no part of the content

The digest is the SHA-256 of bundle.json's canonical form without the digest itself; it names every file's own SHA-256, so it covers
all content and nothing else: no clock, host, path or order of writing.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from feature_repo.names import cross_names, request_names
from serving.bundle.arrays import BadFolder
from serving.bundle.catalogue import Catalogue
from serving.bundle.fallback import Fallback
from serving.objectives import as_settings
from serving.system import Learning, System

Schema = Mapping[str, tuple[tuple[str, str], ...]]  # "user", "item", "request", "cross" -> (name, dtype) in order
FORMAT = 3  # 3: request.onnx takes standardised features; request/
_MANIFEST = "bundle.json"
_NOT_ANSWERED_BY = ("promote",)  # of a system's settings: who releases a bundle says nothing of what it answers
_UNLESS_SAID: Mapping[str, Any] = {"events": {}, "fusion": "as written"}  # left out where they are so, as in the first bundles
_UNLESS_SAID_OF_LEARNING = ("every_days", "cross", "asked", "light", "heavy", "compression", "diversity")
SIGNATURE = "bundle.sig"  # who packed it (serving/bundle/signature.py): the one file that no digest covers


class BadBundle(ValueError):
    """The folder is not the bundle it says it is, or not one this code can serve; the message names the difference."""


class OtherBundle(ValueError):
    """A request, frame or record is another bundle's than the one at hand; the message names both."""


def settings_of(system: System) -> dict[str, Any]:
    """The system file as plain values, as bundle.json keeps it; a rule is its kind and its settings."""
    sizes = {"answer_size": "answer", "pool_size": "pool", "light_size": "light"}  # as bundles of this format name them
    values = asdict(system) | {"rules": [{"kind": rule.kind, "settings": asdict(rule)} for rule in system.rules]}
    values["objectives"] = as_settings(system.objectives)
    del values["learning"]["events"]  # made of the rest of `learning`, or of the system's own
    for name in _UNLESS_SAID_OF_LEARNING:
        if getattr(system.learning, name) == getattr(Learning, name):
            del values["learning"][name]
    for meaning in values["events"].values():
        if meaning.get("below", meaning) is None:
            del meaning["below"]
    del values["learning"]["processes"]  # how many learnt it says nothing of what is answered
    unsaid = {name for name, usual in _UNLESS_SAID.items() if values[name] == usual}
    if Path(system.feature_repo).is_absolute():  # where it lies on this machine says nothing of what is answered
        values["feature_repo"] = Path(system.feature_repo).name
    told = {sizes.get(name, name): value for name, value in values.items() if name not in _NOT_ANSWERED_BY and name not in unsaid}
    return json.loads(json.dumps(told, default=dict))


def write_bundle(parts: Mapping[str, Path], manifest: Mapping[str, Any], out: Path) -> Path:
    """Copy `parts` (place in the bundle -> file or folder) to `out/<digest>/` and return that folder.

    `manifest`: system, settings, schema, span, code_version, metrics, parents. The folder appears whole or not at all; writing the same
    content again returns the folder already there. Raises `BadBundle` when a part is missing.
    """
    files = dict(_files_of(parts))
    digests = _digests(files)
    content = {"format": FORMAT, **json.loads(json.dumps(manifest)), "files": digests}
    digest = _digest_of(content)
    final, partial = out / digest.removeprefix("sha256:"), out / f".{digest.removeprefix('sha256:')}.partial"
    if final.exists():
        verify(final)
        return final
    shutil.rmtree(partial, ignore_errors=True)  # left by a write that was killed
    for name, path in files.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, partial / name)
    (partial / _MANIFEST).write_bytes(_canonical({**content, "digest": digest}, indent=1) + b"\n")
    _sync(partial)
    os.replace(partial, final)
    return final


def show(folder: Path) -> dict[str, Any]:
    """The content of bundle.json. Raises `BadBundle` when it cannot be read or is of another format."""
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise BadBundle(f"{folder} holds no {_MANIFEST}: give the folder of a bundle") from error
    except ValueError as error:
        raise BadBundle(f"{folder / _MANIFEST} is not JSON ({error}): fetch or pack the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise BadBundle(f"{folder / _MANIFEST}: expected format {FORMAT}, got {found!r}: pack the bundle again with this code")
    return manifest


def verify(folder: Path) -> str:
    """The digest, after hashing every file. Raises `BadBundle` naming the first missing, extra or changed file."""
    manifest = show(folder)
    stated, claimed = manifest.get("files", {}), manifest.get("digest")
    actual = _digest_of({name: value for name, value in manifest.items() if name != "digest"})
    if claimed != actual:
        raise BadBundle(f"{folder / _MANIFEST} was changed: it says {claimed}, its content gives {actual}: fetch the bundle again")
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    found.pop(_MANIFEST)
    found.pop(SIGNATURE, None)
    for name in sorted(stated.keys() - found.keys()):
        raise BadBundle(f"bundle {claimed}: file {name} is missing: fetch the bundle again")
    for name in sorted(found.keys() - stated.keys()):
        raise BadBundle(f"bundle {claimed}: file {name} is extra, bundle.json does not name it: remove it or pack again")
    for name, digest in _digests(found).items():
        if digest != stated[name]:
            raise BadBundle(
                f"bundle {claimed}: file {name} was changed: expected sha256 {stated[name]}, got {digest}: fetch the bundle again"
            )
    return str(claimed)


def diff(first: Path, second: Path) -> list[str]:
    """What differs between two bundles, one sentence a difference; empty when they are the same."""
    a, b = show(first), show(second)
    lines = []
    for name in sorted((a.keys() | b.keys()) - {"files", "digest"}):
        lines += _value_differences(name, a.get(name), b.get(name))
    for name in sorted(a["files"].keys() | b["files"].keys()):
        left, right = a["files"].get(name), b["files"].get(name)
        if left != right:
            lines.append(f"file {name}: {'only in the second' if left is None else 'only in the first' if right is None else 'differs'}")
    return lines


def feature_schema(
    user: Iterable[str], item: Iterable[str], kinds: Sequence[str], cross: Sequence[str] = ()
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Name and type of every feature, in order: what bundle.json keeps and `Bundle.load` compares.

    `user`, `item`: the features of the system's Feast services; `cross`: its own cross features; the rest follows from this code.
    """
    user, item = tuple(user), tuple(item)
    names = {"user": user, "item": item, "request": request_names(user), "cross": cross_names(kinds, cross)}
    return {side: tuple((name, "float32") for name in listed) for side, listed in names.items()}


def schema_differences(found: Schema, expected: Schema) -> list[str]:
    """Where two feature schemas part, one sentence a difference: name, dtype or order."""
    lines = []
    for side in sorted(found.keys() | expected.keys()):
        have, want = [tuple(pair) for pair in found.get(side, ())], [tuple(pair) for pair in expected.get(side, ())]
        for at, (left, right) in enumerate(zip(have, want, strict=False)):
            if left[0] != right[0]:
                lines.append(f"{side} feature {at}: the bundle has {left[0]!r}, the code {right[0]!r}")
            elif left[1] != right[1]:
                lines.append(f"{side} feature {left[0]!r}: the bundle has {left[1]}, the code {right[1]}")
        for name, _ in have[len(want) :]:
            lines.append(f"{side} feature {name!r}: in the bundle, not in the code")
        for name, _ in want[len(have) :]:
            lines.append(f"{side} feature {name!r}: in the code, not in the bundle")
    return lines


_verified = verify  # `Bundle.load` has an argument of that name


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; its arrays are mapped read-only, so that worker processes share their pages."""

    folder: Path
    digest: str
    manifest: Mapping[str, Any]
    user_lists_when_read: bool = False

    @classmethod
    def load(cls, folder: Path, verify: bool = True, user_lists_when_read: bool = False) -> "Bundle":
        """`verify=False` skips hashing every file (a worker whose parent process has).

        `user_lists_when_read`: for a server, whose ladder checks a user's list each time it is read: a spoilt one costs that list alone.

        Raises `BadBundle` naming the file, or the feature, that differs.
        """
        manifest = show(folder)
        digest = _verified(folder) if verify else str(manifest["digest"])
        bundle = cls(folder, digest, manifest, user_lists_when_read)
        try:
            len(bundle.catalogue), len(bundle.fallback.static_rows)  # what they hold is checked now, not in some later request
        except BadFolder as error:
            raise BadBundle(f"bundle {digest}: {error}") from error
        differences = schema_differences(manifest["schema"], bundle._expected_schema())
        if differences:
            raise BadBundle(
                f"bundle {digest}: {differences[0]} ({len(differences)} differences): train again, or serve it with its own code"
            )
        return bundle

    def _expected_schema(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """What the bundle's parts and this code make of the users' features it names: its catalogue has the items' names."""
        settings = self.manifest["settings"]
        kinds = [source["kind"] for source in settings["sources"]]
        return feature_schema(self.user_features, self.catalogue.feature_names, kinds, settings["learning"].get("cross", ()))

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue.load(self.folder / "item_table")

    @cached_property
    def fallback(self) -> Fallback:
        when_read = ("user_rows",) if self.user_lists_when_read else ()
        return Fallback.load(self.folder / "fallback", when_read=when_read, I=len(self.catalogue))

    @property
    def user_features(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.manifest["schema"]["user"])


def _files_of(parts: Mapping[str, Path]) -> Iterable[tuple[str, Path]]:
    for place, path in sorted(parts.items()):
        if path.is_file():
            yield place, path
        elif path.is_dir():
            yield from ((f"{place}/{file.relative_to(path).as_posix()}", file) for file in sorted(path.rglob("*")) if file.is_file())
        else:
            raise BadBundle(f"part {place}: {path} does not exist: run the step that writes it")


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each file; hashing releases the interpreter lock, so two threads read and hash at once."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(sorted(files), pool.map(lambda name: _digest_of_file(files[name]), sorted(files)), strict=True))


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(content: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    return json.dumps(content, sort_keys=True, indent=indent, ensure_ascii=True, allow_nan=False).encode()


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _value_differences(name: str, left: object, right: object) -> list[str]:
    if left == right:
        return []
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        keys = sorted(left.keys() | right.keys())
        return [line for key in keys for line in _value_differences(f"{name}.{key}", left.get(key), right.get(key))]
    return [f"{name}: {json.dumps(left)} against {json.dumps(right)}"]
