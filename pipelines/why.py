"""`shortlist why REQUEST_ID`: the story of an answer given before, from the exposure log and the bundle that made it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.exposures.record import Record


class NoSuchAnswer(ValueError):
    """No exposure log under this home knows the request."""


def why(request_id: str, *, home: Path, bundle: Path | None = None, system: str = "") -> dict[str, Any]:
    """Print the story: sources, what moved each score, rules, bundle. Returns it.

    Raises `NoSuchAnswer` when the log does not hold the request, `serving.bundle.bundle.BadBundle` when its bundle is gone.
    """
    from rich.console import Console
    from rich.table import Table

    from serving.bundle.bundle import Bundle, show
    from serving.exposures.explain import explain
    from serving.recommender import Recommender
    from serving.system import load_system

    record = recorded(request_id, home)
    folder = bundle or home / "bundles" / record.bundle.removeprefix("sha256:")
    story = explain(Recommender(Bundle.load(folder), load_system(system or show(folder)["system"])), record)
    screen = Console()
    screen.print({name: value for name, value in story.items() if name not in ("items", "rules")})
    table = Table(
        "", "item", "score", "sources", "because", "moved its score", "features", "rules", title_justify="left", header_style="bold"
    )
    for item in story["items"]:
        moved = ", ".join(f"{name} {value:+.3f}" for name, value in item.get("ranker", {}).items())
        told = ", ".join(f"{one['feature']} {one['part']:+.3f}" for one in item.get("features", ()))
        name = item.get("title") or item["item_id"]
        cells = (name, f"{item['score']:.3f}", ", ".join(item["sources"]), item["reason"], moved, told, ", ".join(item.get("rules", ())))
        table.add_row(str(item["position"] + 1), *cells)
    screen.print(table)
    for rule in story["rules"]:
        screen.print(f"{rule['rule']} {rule['what']} {rule['count'] if 'count' in rule else rule['items']}: {rule['why']}")
    return story


def recorded(request_id: str, home: Path) -> "Record":
    """The record of a request, from any server that ran under `home`."""
    from serving.exposures.log import ExposureLog

    for folder in sorted({file.parent for file in home.rglob("full.sqlite")}):
        log = ExposureLog(folder)
        try:
            found = log.find(request_id)
        finally:
            log.close()
        if found is not None:
            return found
    raise NoSuchAnswer(
        f"no answer {request_id!r} is in the exposure logs under {home}: it is too old, another server gave it, or its full record was not "
        "in the sample (--exposures-sample)"
    )
