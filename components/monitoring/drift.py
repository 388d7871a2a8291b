"""Whether what is served now is still the world the champion was judged in. `shortlist drift SYSTEM` runs it.

Reference is the champion's window: the days after its cut in which the gate found it good, so that accuracy is compared out of sample on
both sides. Where the rows end at the cut (a bundle learnt again from all of them) it is the last days before, and hits are not compared.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from components.monitoring import report
from components.monitoring.rows import GROWING, Visits, frame
from components.monitoring.sample import Window, draw
from components.monitoring.skew import sentence, skew
from components.monitoring.verdict import UNSURE, Verdict, judge
from feature_repo.schema import SECONDS_A_DAY
from serving.bundle.catalogue import Catalogue
from serving.system import System

if TYPE_CHECKING:
    import pandas as pd

HITS = "answer_hits"


def drift(
    system: System,
    bundle: Path,
    users: Path,
    tables: Path,
    served: Path | None,
    out: Path,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Verdict:
    """The verdict on the window from `since` to `until`; by default the latest days, as many as a target has, after the reference.

    `bundle`, `users`: what answers now. `tables`: those accepted last. `served`: what `components.data.served.collect` wrote, or None.
    Writes `out/verdict.json drift.html drift.prom` and the two frames.
    """
    cut = datetime.fromtimestamp(float(Catalogue.load(bundle / "item_table").cut_day) * SECONDS_A_DAY, UTC)
    length = timedelta(days=system.learning.horizon_days)
    visits = Visits(system, tables, served)
    try:
        last = visits.last()
        reference = (cut, cut + length)
        skipped = frozenset(GROWING)
        if last is None or last < cut + timedelta(days=1) or not visits.draw(*reference, most=1):
            reference, skipped = (cut - length, cut), frozenset((*GROWING, HITS))
        window = _window(since, until, last, reference[1], length)
        then = frame(system, bundle, users, visits, *reference)
        now = frame(system, bundle, users, visits, *window)
        skewed = skew(system, bundle, users, visits, served) if served is not None else {"answers": 0, "columns": {}}
    finally:
        visits.close()
    verdict = _judged(then, now, skipped, out)
    verdict |= {
        "system": system.name,
        "bundle": bundle.name,
        "reference_window": [moment.isoformat() for moment in reference],
        "window": [moment.isoformat() for moment in window],
        "skew": skewed,
        "sentence": verdict["sentence"] + sentence(skewed),
        "ctr": ctr(served) if served is not None else {},
    }
    report.write(verdict, system.name, then, now, out)
    return verdict


def _window(
    since: datetime | None, until: datetime | None, last: datetime | None, earliest: datetime, length: timedelta
) -> tuple[datetime, datetime]:
    """The window to judge, never overlapping the reference."""
    end = until or (last or earliest).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return max(since or end - length, earliest), end


def _judged(then: "pd.DataFrame", now: "pd.DataFrame", skipped: frozenset[str], out: Path) -> Verdict:
    """The verdict on two frames, drawn through their files so that what was judged can be looked at."""
    out.mkdir(parents=True, exist_ok=True)
    if not len(then) or not len(now):
        which = "since then" if not len(now) else "in the champion's window"
        empty = {"rows": 0, "users": 0, "sampled": 0, "first": "", "last": "", "nulls": {}}
        sentence = f"Cannot judge: nobody had anything {which}: serve and send events, or give --since and --until."
        nothing: Verdict = {"reference": empty, "current": empty, "skipped": sorted(skipped), "tests": [], "causes": [], "season": []}
        return nothing | {"verdict": UNSURE, "sentence": sentence}
    reference, current = (_drawn(one, out / f"{name}.parquet") for name, one in (("reference", then), ("current", now)))
    return judge(reference, current, skipped)


def _drawn(rows: "pd.DataFrame", path: Path) -> Window:
    rows.to_parquet(path, index=False)
    return draw(path)


def ctr(served: Path) -> dict[str, dict[str, float]]:
    """Users' own lists that something came of, a bundle: share, its error, how many were shown. Other questions are left out."""
    from components.data.duck import connect
    from components.monitoring.verdict import clicked_by_bundle

    connection = connect()
    try:
        shown = f"read_parquet('{served / 'shown.parquet'}')"
        events = f"read_parquet('{served / 'events.parquet'}')"
        answers = connection.execute(
            f"""SELECT bundle, request_id, max((context_request_id IS NOT NULL)::INT) AS clicked FROM {shown} AS shown
            LEFT JOIN (SELECT DISTINCT context_request_id, item_id FROM {events}) AS event
            ON event.context_request_id = shown.request_id AND event.item_id = shown.item_id WHERE about = '' GROUP BY ALL"""
        ).df()
    finally:
        connection.close()
    return clicked_by_bundle(answers)
