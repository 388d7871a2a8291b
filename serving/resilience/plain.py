"""What stands around the ladder: where it fails, the answer is plainer and still an answer; counted, and told of once in the log."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Plain:
    """Runs a part of an answer that has no rung below it, with a named plain form for when it fails.

    `count`: what is called with the part's name for each failure; `log`: where the first of each part is told of.
    """

    def __init__(self, count: Callable[[str], None] | None = None, log: Any = None) -> None:
        self._count, self._log = count, log
        self._told: set[str] = set()

    def run(self, part: str, function: Callable[..., T], *args: Any, otherwise: Callable[[], T]) -> T:
        """What `function` gives, or `otherwise` where it raises."""
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the answer: counted, told of, and plain instead
            if self._count is not None:
                self._count(part)
            if self._log is not None and part not in self._told:
                self._told.add(part)
                self._log.warning("a part of an answer failed and is plain instead", part=part, error=f"{type(error).__name__}: {error}")
            return otherwise()
