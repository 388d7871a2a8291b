"""What a source is: the one interface its module fills in, and three more it may.

`serving/retrieval/sources.py` finds the class of a kind; its twin in `components/retrieval/` fits what `load` reads. All that is known of a
kind stands in its two modules: nobody else asks which kind a source is, only whether it is `Explained`, `Embeds` or `Needs` something of
the tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from numpy.typing import NDArray

from serving.bundle.arrays import Floats, Rows
from serving.bundle.catalogue import Catalogue
from serving.query import Hits, Query
from serving.system import SourceSpec

Table = NDArray[Any]


class TowerSides(Protocol):
    """What the item tower says of n posted items."""

    @property
    def vector(self) -> Floats:
        """(n, D) of length one; (n, 0) without a tower."""
        ...

    @property
    def history(self) -> Floats:
        """(n, D) what an item adds to the history bag; (n, 0) without a tower."""
        ...

    def behind(self, name: str, base: Table, rows: Callable[[int], Table]) -> Table:
        """`base` (I, ...) and the posted items' rows behind it, of which `rows` makes those from a place on: the others are there."""
        ...


class Source(Protocol):
    """Anything that answers a query with its best items."""

    @property
    def spec(self) -> SourceSpec:
        """What the system file says of it."""
        ...

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        """From what its twin wrote to `folder`. Raises `serving.bundle.arrays.BadFolder` for one that was not fitted."""
        ...

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The best `n` items, none of `query.excluded`. `vector` (D,): the user tower's output, for the sources that search by it."""
        ...

    def reason(self, query: Query, row: int) -> str:
        """One plain sentence on why it would bring item `row`; empty where it has nothing to say that a user could read."""
        ...

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """The same source that also knows the posted items: the last n of the rows of `catalogue`, in the order of `sides`.

        A source that only ever returns items it has counted returns itself.
        """
        ...


@runtime_checkable
class Explained(Source, Protocol):
    """A source whose score of an item is a sum over the user's own items, so that it can name them."""

    def contributions(self, query: Query, row: int) -> tuple[Rows, Floats]:
        """Rows of history and session with their parts of the score of item `row`, greatest first; the parts sum to the score."""
        ...

    def nearest(self, query: Query, row: int) -> int:
        """The row that says most for item `row`, the first of `contributions`; -1 where none says anything for it."""
        ...


@runtime_checkable
class Embeds(Source, Protocol):
    """A source whose tower reads the user's history as one vector, made before any source is asked."""

    def history_embedding(self, query: Query) -> Floats:
        """(D,) of what the user had and looked at; zeros without any."""
        ...


@runtime_checkable
class Alike(Source, Protocol):
    """A source that knows which items are like one, whoever asks."""

    def alike(self, row: int, n: int, excluded: Rows) -> Hits:
        """The `n` items most like item `row`, best first, itself and `excluded` left out; none where it knows nothing of the item."""
        ...

    def likeness(self, verb: str, title: str) -> str:
        """One plain sentence on what they have in common with the item of that title. `verb`: of a positive event, past tense."""
        ...


@runtime_checkable
class Vectors(Source, Protocol):
    """A source that searches by vectors: a user's score of an item is user . item / temperature + prior."""

    @property
    def temperature(self) -> float: ...

    def item_vectors(self) -> tuple[Floats, Floats]:
        """Of every item its vector and its prior: (I, D), (I,)."""
        ...


@runtime_checkable
class Counted(Source, Protocol):
    """A source that has counted who had what lately."""

    def counted(self, query: Query) -> Rows:
        """Every item that anybody had, most users first: those of the question's place or region, then those of all."""
        ...


@dataclass(frozen=True)
class Given:
    """What the tables hold of what only some sources work on."""

    positives: tuple[str, ...]  # types that are learnt from and that the events have
    again: float  # share of them, of the type with the most, that are of an item the user had before
    planned: int  # rows of the table context


@runtime_checkable
class Needs(Protocol):
    """A source that brings nothing, whatever is learnt, where the tables lack what it works on."""

    @classmethod
    def lacks(cls, given: Given) -> str:
        """What it misses in the tables, in one plain sentence; empty where it misses nothing."""
        ...
