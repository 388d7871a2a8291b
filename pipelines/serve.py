"""What `shortlist serve` tells the server: which bundle, which users, where events go, what time it is."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.release.shelf import released
from serving.options import Options
from serving.state import StateTable

OLD_DAYS = 30  # a bundle older than this is served at the time it was learnt: by today's clock everything in it would be forgotten


def options(system: str, home: Path, bundle: Path | None, *, host: str, port: int, workers: int, clock: str) -> Options:
    """The champion, or the given bundle, with its users; events and sessions under `<home>/serving/<bundle>`."""
    found = released(system, home, bundle)
    return Options(
        bundle=found.bundle,
        system=system,
        host=host,
        port=port,
        workers=workers,
        users=found.users,
        events=f"dir:{home / 'serving' / found.bundle.resolve().name[:12]}",
        clock=clock or _clock(found.users),
        kserve=False,
    )


def _clock(users: Path) -> str:
    cut = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=StateTable.load(users).cut_day)
    return "now" if datetime.now(UTC) - cut < timedelta(days=OLD_DAYS) else cut.isoformat()
