"""Users who were deleted: nothing made of them before is used again, by any worker, after any restart, whatever store is down.

The event log says when (`ERASE`), so states are folded without what came before; this book says it beside the states, to whoever cannot
read them or makes them anew from a table of the cut. It is kept as safety messages are: a file of each machine, and Redis between them.
Users stand in it under a 64-bit name, not their id.
"""

import asyncio
import threading
from typing import Any

from serving.exposures.shown import user_key
from serving.new_items.safety import Safety, Said
from serving.state.store import StoreUnavailable

POLL_SECONDS = 1.0  # another machine's deletions are known here after this long
_ACTION = "delete"


class DeletedUsers:
    """The book of one worker. Safe between threads."""

    def __init__(self, book: Safety) -> None:
        self._book, self._days = book, dict[str, float]()
        self._lock = threading.Lock()

    def add(self, who: str, day: float) -> None:
        """Keep it: on disk when this returns, and heard by the next request of every worker of the machine. Raises `StoreUnavailable`."""
        self._book.say([Said(_name(who), _ACTION, True, day)])
        self.hear()

    def day(self, who: str) -> float | None:
        """When the user was deleted, the last time; None: never."""
        return self._days.get(_name(who)) if self._days else None

    def is_news(self) -> bool:
        """Whether another worker of this machine was told of somebody since `hear`."""
        return self._book.is_news()

    def hear(self) -> None:
        """Know whom this machine knows. Raises `StoreUnavailable`."""
        with self._lock:
            self._days = {name: said.at for (name, _), said in self._book.book().items() if said.on}

    def share(self) -> None:
        """Hear what other machines were told, and tell them what this one was. Raises `StoreUnavailable`."""
        self._book.share()
        self.hear()

    async def follow(self, log: Any) -> None:
        """Share for ever, in a thread."""
        while True:
            try:
                await asyncio.to_thread(self.share)
            except StoreUnavailable as error:
                log.warning("deleted users cannot be read", reason=str(error))
            await asyncio.sleep(POLL_SECONDS)


def _name(who: str) -> str:
    return f"{user_key(who):016x}"
