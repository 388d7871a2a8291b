"""Lists from a released bundle without a server: one user's on the screen, everybody's in a file."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.release.releases import released
from serving.query import Answer, Request
from serving.recommender import Recommender
from serving.state.user_state import StateTable, UserState
from serving.system import System, load_system

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import RenderableType

    from components.evaluation.batch import BatchResult
    from serving.bundle.catalogue import Catalogue

RECENT = 8  # past items shown beside a list
FILLED_UP = "popular"  # source of what filled up a list the pool was too small for


def recommend(system: str, user: str, *, k: int, why: bool, home: Path, bundle: Path | None = None) -> Answer:
    """Print `k` items for a user with a reason each, beside what the user had last; `why` adds sources and scores. Returns the answer.

    Raises `components.release.releases.NothingReleased` when there is nothing to answer with.
    """
    from rich.console import Console

    from components.evaluation.batch import open_recommender

    found, loaded = released(system, home, bundle), load_system(system)
    recommender, states = open_recommender(loaded, found.bundle), StateTable.load(found.users)
    index = states.index(user)
    state = states[index] if index >= 0 else UserState(user)
    answer = recommender.recommend(Request(user, k, states.cut_day), state)
    screen = Console()
    screen.print(recent_table(loaded, recommender, state))
    screen.print(answer_table(loaded, recommender, answer, why=why))
    return answer


def recent_table(system: System, recommender: Recommender, state: UserState) -> "RenderableType":
    """What the user had last, newest first."""
    from rich.table import Table

    catalogue = recommender.catalogue
    rows = catalogue.rows_of_keys(state.keys)  # (H,)
    latest = [at for at in np.lexsort((rows, -state.last_day)).tolist() if rows[at] >= 0][:RECENT]
    if not latest:
        return f"Nothing is known of user {state.user_id}: the list is what is popular."
    table = Table(title=f"Lately {system.verb} by {state.user_id}", title_justify="left", header_style="bold")
    for name, justify in (("when", "left"), (system.noun, "left"), ("category", "left"), ("times", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for at in latest:
        when = str(np.datetime64("1970-01-01") + np.timedelta64(int(state.last_day[at]), "D"))
        row = int(rows[at])
        table.add_row(when, _name(catalogue, row), catalogue.category_name(row), f"{state.counts[at]:g}")
    return table


def answer_table(system: System, recommender: Recommender, answer: Answer, *, why: bool = False) -> "RenderableType":
    """An answer, best first, with the sentence a user may read."""
    from rich.table import Table

    catalogue = recommender.catalogue
    caption = f"bundle {answer.bundle[:19]}…  {answer.took_ms:.1f} ms"
    table = Table(
        title=f"{len(answer.items)} {system.noun}s", caption=caption, title_justify="left", caption_justify="left", header_style="bold"
    )
    table.add_column("", justify="right")
    for name in (system.noun, "category", "because"):
        table.add_column(name)
    if why:
        table.add_column("from")
        table.add_column("score", justify="right")
    for place, item in enumerate(answer.items, 1):
        more = (", ".join(item.sources) or FILLED_UP, f"{item.score:.3f}") if why else ()
        table.add_row(str(place), _name(catalogue, item.row), catalogue.category_name(item.row), item.reason, *more)
    return table


def _name(catalogue: "Catalogue", row: int) -> str:
    return catalogue.title(row) or catalogue.item_id(row)


def batch(system: str, out: Path, *, per_user: int, discover: bool, home: Path, bundle: Path | None = None) -> int:
    """Write `per_user` items for every user to `out`: user_id, item_id, rank (1-based), score, source. Returns the rows written.

    The rankers' order under the hard rules (in stock, not recalled): what `evaluate` judges, and a pool for real-time re-ranking. Where the
    pool is smaller than `per_user`, popular items fill it up, and say so as their source.
    """
    import pyarrow.parquet
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from components.evaluation.batch import Question, ask

    found, loaded = released(system, home, bundle), load_system(system)
    states = StateTable.load(found.users)
    question = Question(np.arange(len(states)), per_user, discover=discover)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("lists", total=len(states))
        (told,) = ask(loaded, found.bundle, found.users, [question], lambda more: progress.advance(task, more))
    table = _lists_table(loaded, found.bundle, states, told)
    out.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, out, compression="zstd")
    return len(table)


def _lists_table(system: System, bundle: Path, states: StateTable, told: "BatchResult") -> "pa.Table":
    """Users in the order of their ids, best item first."""
    import pyarrow as pa

    from serving.bundle.catalogue import Catalogue

    items = Catalogue.load(bundle / "item_table").item_ids
    user, place = np.nonzero(told.rows >= 0)
    kinds = [source.kind for source in system.sources] + [FILLED_UP]
    source = told.source[user, place].astype(np.int32) % len(kinds)  # FILLED, -1, is the last
    return pa.table(
        {
            "user_id": _coded(user, [bytes(text).decode() for text in np.asarray(states.user_ids)]),
            "item_id": _coded(told.rows[user, place], [text.decode() for text in items.tolist()]),
            "rank": pa.array((place + 1).astype(np.int32)),
            "score": pa.array(told.scores[user, place]),
            "source": _coded(source, kinds),
        }
    )


def _coded(codes: np.ndarray, names: list[str]) -> "pa.ChunkedArray":
    """Texts by code, written plainly: a reader sees strings."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names)).cast(pa.string())
