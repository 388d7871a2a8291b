"""What the forms of the rankers cost and lose, as a run shows it: numbers, a table, and a plot of loss against time.

Read from the export's `parity.json` and `timing.json`, whose words are those of `components/export/forms.py`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from components.release.making import Making

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = ("ranker and form", "candidates", "µs of CPU a call", "as drawn ÷ this", "NDCG lost", "value error", "bytes", "")
RANKERS = ("light", "heavy")
DRAWN = "drawn"


def numbers(making: Making) -> Iterator[tuple[str, float]]:
    """Of every form: time by candidates, what is lost, bytes; how many times as fast as drawn what is served is."""
    for ranker, told in _told(making):
        for form, timed in making.timing[ranker].items():
            for count, (us, error) in timed.items():
                yield f"forms/{ranker} {form}: us of {count}", us
                yield f"forms/{ranker} {form}: us of {count} error", error
        for form, one in told["forms"].items():
            yield f"forms/{ranker} {form}: NDCG lost", one["lost"]
            yield f"forms/{ranker} {form}: NDCG lost error", one["lost_error"]
            yield f"forms/{ranker} {form}: value error grown", one["grown"]
            yield f"forms/{ranker} {form}: bytes", one["graph_bytes"] + one["halves_bytes"]
        for count in making.timing[ranker][DRAWN]:
            yield f"forms/{ranker} served: times as fast as drawn, {count}", speedup(making, ranker, told["served"], count)


def speedup(making: Making, ranker: str, form: str, count: str) -> float:
    """How many times as fast as the network as drawn a form answers for so many candidates."""
    timed = making.timing[ranker]
    return float(timed[DRAWN][count][0] / max(timed[form][count][0], 1e-9))


def rows(making: Making) -> list[tuple[str, ...]]:
    """Those of `HEAD`: every form at each number of candidates, and why it is served or not."""
    found: list[tuple[str, ...]] = []
    for ranker, told in _told(making):
        for form, timed in making.timing[ranker].items():
            one = told["forms"].get(form)
            word = told["why"] if form == told["served"] else told["refused"].get(form, "")
            lost = ("", "", "") if one is None else (
                f"{one['lost']:+.2%} ± {one['lost_error']:.2%}", f"{one['grown']:+.2%}", f"{one['graph_bytes'] + one['halves_bytes']:,}"
            )  # fmt: skip
            for count, (us, error) in timed.items():
                name = f"{ranker} {form}{' (served)' if form == told['served'] else ''}"
                found.append((name, count, f"{us:,.0f} ± {error:,.0f}", f"{speedup(making, ranker, form, count):.1f}", *lost, word))
    return found


def figure(making: Making) -> "Figure":
    """Each ranker's forms by time and loss; those that no other form beats in both are joined."""
    from matplotlib.figure import Figure

    found = dict(_told(making))
    made = Figure(figsize=(5 * len(found), 3.6), layout="constrained")
    for axis, (ranker, told) in zip(made.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        timed = making.timing[ranker]
        count = max(timed[DRAWN], key=int) if ranker == "light" else min(timed[DRAWN], key=int)
        points = {form: (timed[form][count][0], 100 * one["lost"]) for form, one in told["forms"].items()}
        for form, (us, lost) in points.items():
            axis.errorbar(
                us, lost, 100 * told["forms"][form]["lost_error"], timed[form][count][1], fmt="s" if form == told["served"] else "o"
            )
            axis.annotate(form, (us, lost), fontsize=7, xytext=(3, 3), textcoords="offset points")
        best = front(points)
        axis.plot(*zip(*(points[form] for form in best), strict=True), linewidth=0.8, color="grey")
        axis.axvline(timed[DRAWN][count][0], linestyle=":", color="grey")
        axis.set(title=f"{ranker}, {count} candidates (dotted: as drawn)", xlabel="µs of CPU a call", ylabel="NDCG lost, %", xscale="log")
    return made


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The forms (time, loss) that none is better than in both, fastest first."""
    best, least = [], float("inf")
    for form, (_, lost) in sorted(points.items(), key=lambda item: item[1]):
        if lost < least:
            best.append(form)
            least = lost
    return best


def _told(making: Making) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each ranker's part of the export's record; nothing where the export's folder was not given."""
    return ((ranker, making.forms[ranker]) for ranker in RANKERS if ranker in making.forms and ranker in making.timing)
