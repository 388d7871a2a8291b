"""What a ladder asks of others: stages in other processes, and the log of its answers."""

from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol, TypeVar

from serving.query import Answer, Candidates, Query
from serving.rankers import UserSide
from serving.recommender import Scores
from serving.records import Record


class Retriever(Protocol):
    """Retrieval elsewhere. Raises when it fails or `timeout_seconds` are over."""

    def __call__(self, query: Query, side: UserSide, timeout_seconds: float) -> Candidates | Awaitable[Candidates]: ...


class Ranker(Protocol):
    """Ranking elsewhere."""

    def __call__(self, query: Query, side: UserSide, pool: Candidates, timeout_seconds: float) -> Scores | Awaitable[Scores]: ...


class Exposures(Protocol):
    """Where answers are kept; `keep` never waits and never raises."""

    def keep(self, answer: Answer) -> None: ...

    def find(self, request_id: str) -> Record | None: ...


T = TypeVar("T")


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nobody elsewhere. Raises `RuntimeError` for one that waits."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    coroutine.close()
    raise RuntimeError("a stage of this ladder is elsewhere: await `answered`")
