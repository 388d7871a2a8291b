"""A run's log: everything the steps print goes to a file; their own event lines are also shown."""

import io
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self


class Journal(io.TextIOBase):
    """A text stream that keeps every line in `path` and hands lines beginning with `step=` to `show`."""

    def __init__(self, path: Path, show: Callable[[str], None] | None = None) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._show = show
        self._line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._file.write(text)
        self._line += text
        *whole, self._line = self._line.split("\n")
        for line in whole:
            event = line.strip()  # kfp indents what a step prints
            if self._show and event.startswith("step="):
                self._show(event)
        return len(text)

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
