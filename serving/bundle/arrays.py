"""Folders of named arrays: one `.npy` a field, so that every worker maps the same pages read-only. What they hold is checked at load."""

import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Self, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray


class BadFolder(ValueError):
    """A folder lacks an array, or holds one of another type, length or range; the message names the file and the value."""


class Held(NamedTuple):
    """What an array holds, written at its field: `rows: Annotated[NDArray[np.int32], Held("M", 0, "I")]`.

    An integer array says from where to where its numbers go, or that it may hold any. Floats are finite unless NaN stands for unknown.
    """

    axes: str = ""  # a letter an axis, the same letter being the same length in all of a folder; "?": any length
    least: int = 0
    below: int | str | None = None  # a number; a letter of the axes; a field: its value, or how many it has
    ends: str = ""  # these are where stretches of what lies end to end along this axis end: they never fall, the last is its length
    any: bool = False  # every number of its type means something
    unknown: bool = False  # NaN: not known


@dataclass(frozen=True)
class ArrayFolder:
    """Base of dataclasses whose fields are arrays (saved as `<field>.npy`) and plain values (saved in `meta.json`).

    `save` writes the same bytes for the same values; `load` maps the arrays read-only. A field with a default may be missing in a folder
    that was written before there was such a field.
    """

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        meta: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                np.save(folder / f"{field.name}.npy", np.ascontiguousarray(value), allow_pickle=False)
            else:
                meta[field.name] = value
        (folder / "meta.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path, *, when_read: Collection[str] = (), **lengths: int) -> Self:
        """`lengths`: of axes that are known elsewhere (I=items of the catalogue). Raises `BadFolder` naming the file and what is wrong.

        `when_read`: fields of which type and shape alone are checked now, since whoever reads their numbers checks those it reads.
        """
        try:
            meta = json.loads((folder / "meta.json").read_text())
            values = {
                field.name: tuple(meta[field.name])
                if isinstance(meta.get(field.name), list)
                else meta[field.name]
                if field.name in meta
                else _mapped(folder / f"{field.name}.npy")
                for field in fields(cls)
                if field.default_factory is MISSING or (folder / f"{field.name}.npy").exists()
            }
        except (FileNotFoundError, KeyError, ValueError, AttributeError) as error:
            raise BadFolder(f"{folder} is not a complete {cls.__name__} ({error}): build it again") from error
        _check(folder, values, {name: held for name, held in held_by(cls).items() if name in values}, lengths, when_read)
        return cls(**values)


Declared = tuple[tuple[type[np.generic], ...], Held]  # the types an array may have, and what it holds


def held_by(kind: type[ArrayFolder]) -> Mapping[str, Declared]:
    """Of each array of a folder the types it may have, and what it holds."""
    found: dict[str, Declared] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        told, *more = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        arrays = get_args(told) if isinstance(told, UnionType) else (told,)
        if all(get_origin(array) is np.ndarray for array in arrays):
            types = tuple(get_args(get_args(array)[1])[0] for array in arrays)
            found[name] = (types, next((one for one in more if isinstance(one, Held)), Held(any=True, unknown=True)))
    return found


def check_finite(file: Path, array: NDArray[Any]) -> None:
    """Raises `BadFolder` where a number is NaN or endless."""
    if not np.isfinite(array).all():
        _refuse(file, array, ~np.isfinite(array), "a finite number")


def _check(
    folder: Path, values: Mapping[str, Any], held: Mapping[str, Declared], lengths: Mapping[str, int], when_read: Collection[str]
) -> None:
    known = dict(lengths)
    for name, (types, of) in held.items():
        file, array = folder / f"{name}.npy", values[name]
        if not isinstance(array, np.ndarray) or not any(np.issubdtype(array.dtype, one) for one in types):
            found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise BadFolder(f"{file} holds {found}, expected {' or '.join(one.__name__ for one in types)}: build it again")
        _check_axes(file, array, of.axes, known)
    for name, (_, of) in ((name, told) for name, told in held.items() if name not in when_read):
        _check_numbers(folder / f"{name}.npy", values[name], of, {**values, **known})


def _check_axes(file: Path, array: NDArray[Any], axes: str, known: dict[str, int]) -> None:
    """`known` learns the lengths of axes met for the first time."""
    if axes and array.ndim != len(axes):
        raise BadFolder(f"{file} has {array.ndim} axes, expected {len(axes)}: build it again")
    for axis, length in zip(axes, array.shape, strict=False):
        expected = int(axis) if axis.isdigit() else length if axis == "?" else known.setdefault(axis, length)
        if length != expected:
            raise BadFolder(f"{file} is of shape {array.shape}, expected {expected} along axis {axis}: build it again")


def _check_numbers(file: Path, array: NDArray[Any], of: Held, known: Mapping[str, Any]) -> None:
    if array.dtype.kind == "f" and not of.unknown:
        check_finite(file, array)
    if array.dtype.kind not in "iu" or of.any or not array.size:
        return
    if of.ends:
        length = known.get(of.ends, int(array[-1]))
        if array[0] < 0 or array[-1] != length or (array[1:] < array[:-1]).any():
            _refuse(file, array, np.append(array[:-1] > array[1:], array[-1] != length) | (array < 0), f"ends that rise to {length}")
        return
    below = _number(known.get(of.below)) if isinstance(of.below, str) else of.below
    most = int(array.max()) if below is None else below - 1
    if array.min() < of.least or array.max() > most:
        _refuse(file, array, (array < of.least) | (array > most), f"{of.least} to {most}")


def _number(value: Any) -> int | None:
    """A length, or how many a field has."""
    return value if value is None or isinstance(value, int) else len(value)


def _refuse(file: Path, array: NDArray[Any], wrong: NDArray[np.bool_], expected: str) -> None:
    at = tuple(int(place) for place in np.unravel_index(int(wrong.argmax()), wrong.shape))
    raise BadFolder(f"{file} holds {array[at]} at {list(at)}, expected {expected}: fetch or build it again")


def _mapped(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    empty = path.stat().st_size <= 128  # the header alone: nothing to map
    array: np.ndarray = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)
    array.flags.writeable = False
    return array.view(np.ndarray)  # still the mapped pages; indexing a memmap itself costs a microsecond more each time


Rows = NDArray[np.int32]


Floats = NDArray[np.float32]


Mask = NDArray[np.bool_]
