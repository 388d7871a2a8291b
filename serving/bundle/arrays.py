"""Folders of named arrays: one `.npy` a field, so that every worker maps the same pages read-only."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class BadFolder(ValueError):
    """A folder lacks an array or holds one of another type."""


@dataclass(frozen=True)
class ArrayFolder:
    """Base of dataclasses whose fields are arrays (saved as `<field>.npy`) and plain values (saved in `meta.json`).

    `save` writes the same bytes for the same values; `load` maps the arrays read-only.
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
    def load(cls, folder: Path) -> Self:
        """Raises `BadFolder` naming the missing file."""
        try:
            meta = json.loads((folder / "meta.json").read_text())
            values = {
                field.name: tuple(meta[field.name])
                if isinstance(meta.get(field.name), list)
                else meta[field.name]
                if field.name in meta
                else _mapped(folder / f"{field.name}.npy")
                for field in fields(cls)
            }
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise BadFolder(f"{folder} is not a complete {cls.__name__} ({error}): build it again") from error
        return cls(**values)


def _mapped(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    empty = path.stat().st_size <= 128  # the header alone: nothing to map
    array: np.ndarray = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)
    array.flags.writeable = False
    return array.view(np.ndarray)  # still the mapped pages; indexing a memmap itself costs a microsecond more each time


Rows = NDArray[np.int32]


Floats = NDArray[np.float32]


Mask = NDArray[np.bool_]
