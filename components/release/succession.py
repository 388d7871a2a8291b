"""Who was champion, and after whom: two tags a version, written by whoever makes or notices the change.

`champion.since` is when a version last became champion, `champion.undone` when it was last rolled back. The alias alone says who answers;
the tags say where a rollback leads.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from components.release.registry import CHAMPION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SINCE, UNDONE = "champion.since", "champion.undone"


def crown(client: "MlflowClient", version: "ModelVersion") -> None:
    """Make the version the champion."""
    client.set_registered_model_alias(version.name, CHAMPION, version.version)
    note(client, version)


def note(client: "MlflowClient", version: "ModelVersion") -> None:
    """Write down that the version is champion from now on."""
    client.set_model_version_tag(version.name, version.version, SINCE, now())


def now() -> str:
    """This moment, to the microsecond, in UTC: times of one form sort as texts."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def before(versions: "list[ModelVersion]", current: "ModelVersion") -> "ModelVersion | None":
    """The version that was champion before the current one and was not undone since; None when there is none."""
    earlier = [
        version
        for version in versions
        if version.version != current.version and SINCE in version.tags and version.tags[SINCE] > version.tags.get(UNDONE, "")
    ]
    return max(earlier, key=lambda version: str(version.tags[SINCE]), default=None)
