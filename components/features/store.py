"""The one door to Feast on this side: apply a system's definitions to a run, and ask the store for features as of a cut."""

import importlib.util
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from numpy.typing import NDArray

import feature_repo
from components.features.own_views import OwnView, redirected
from serving.system import System

ROOT = Path(feature_repo.__file__).parents[1]


KEYS = {"users": "user_id", "items": "item_id"}  # each system's two Feast services, and what a row of each is about


class LostRows(ValueError):
    """The store did not answer with one row for each row asked."""


class BadService(ValueError):
    """A system's Feast services do not say what its users' and items' features are."""


def _connection_string(url: str) -> str:
    """`redis://:PASSWORD@HOST:PORT/DB` as Feast writes it: `HOST:PORT,db=DB,password=PASSWORD`."""
    from redis.connection import parse_url

    told = parse_url(url)
    named = {"db": told.get("db", 0), "username": told.get("username"), "password": told.get("password")}
    named |= {"ssl": "true"} if url.startswith("rediss:") else {}
    place = f"{told.get('host', 'localhost')}:{told.get('port', 6379)}"
    return ",".join([place, *(f"{name}={value}" for name, value in named.items() if value)])


@dataclass(frozen=True)
class Definitions:
    """What a system's features.py holds."""

    objects: tuple[Any, ...]  # Feast's entities, views and services
    computed: tuple[Any, ...]  # `feature_repo.views.Computed`: the views whose rows are made from the four tables
    own: tuple[OwnView, ...]  # the others: their rows are known elsewhere, and copied into the run


def open_store(system: System, run: Path, online: Path | str | None = None) -> Any:
    """The system's Feast store over the run's folder: its registry, sources and online file all lie under `run`.

    `online`: another online store than the one its configuration names: a SQLite file, or an address redis://….
    """
    import yaml
    from feast import FeatureStore, RepoConfig

    text = (ROOT / system.feature_repo / "feature_store.yaml").read_text()
    settings = yaml.safe_load(text)
    if isinstance(online, Path):
        settings["online_store"] = {"type": "sqlite", "path": str(online)}
    elif online:
        settings["online_store"] = {"type": "redis", "connection_string": _connection_string(online)}
    config = RepoConfig(**settings)
    config.repo_path = run
    return FeatureStore(repo_path=str(run), config=config)


def apply(system: System, run: Path, moment: datetime, online: Path | str | None = None) -> Any:
    """Register the system's entities, views and services in the run's own registry; returns the open store.

    The registry's times become `moment` and its random ids fixed, so that equal inputs leave equal bytes. `online`: also make this
    online store's tables; without it no online file is left.
    """
    (run / "feast").mkdir(parents=True, exist_ok=True)
    store = open_store(system, run, online or run / "feast" / "unused.db")
    store.apply(list(definitions(system).objects))
    (run / "feast" / "unused.db").unlink(missing_ok=True)
    _settle(run / store.config.registry.path, moment)
    store.refresh_registry()
    return store


def definitions(system: System) -> Definitions:
    """The Feast objects in the system's features file, made anew, every source being in the run's folder.

    Raises `FileNotFoundError` where there is no such file, `components.features.own_views.BadView` where a view reads no Parquet files.
    """
    from feast import Entity, FeatureService, FeatureView

    from feature_repo.views import Computed

    path = ROOT / system.feature_repo / "features.py"
    spec = importlib.util.spec_from_file_location(f"_features_{path.parent.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(
            f"there are no feature definitions at {path}: a system's feature_repo holds feature_store.yaml and features.py"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = list(vars(module).values())
    computed = tuple(value for value in found if isinstance(value, Computed))
    objects = [value for value in found if isinstance(value, Entity | FeatureView | FeatureService)]
    entities = {value.name: value for value in objects if isinstance(value, Entity)}
    own = tuple(redirected(value, entities, path.parent) for value in objects if isinstance(value, FeatureView))
    return Definitions((*objects, *(one.view for one in computed)), computed, own)


def _settle(path: Path, moment: datetime) -> None:
    """Take out of the registry what differs from run to run: the clock's times, random ids, a set's order, and the history of versions."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry = Registry.FromString(path.read_bytes())
    _set_times_in(registry, moment)
    registry.version_id = ""
    registry.ClearField("feature_view_version_history")
    registry.data_sources.sort(key=lambda source: source.name)  # Feast gathers them in a set
    for metadata in registry.project_metadata:
        metadata.project_uuid = str(uuid5(NAMESPACE_URL, metadata.project))
    path.write_bytes(registry.SerializeToString(deterministic=True))


def _set_times_in(message: Any, moment: datetime) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    for field, value in message.ListFields():
        if field.message_type is None or (field.message_type.has_options and field.message_type.GetOptions().map_entry):
            continue
        for part in value if field.is_repeated else [value]:
            if isinstance(part, Timestamp):
                part.FromDatetime(moment)
            else:
                _set_times_in(part, moment)


def feature_names(store: Any, service: str) -> tuple[str, ...]:
    """The features of a service in its order: by view, and in a view as its schema has them. Raises `BadService`."""
    from feast.errors import FeastObjectNotFoundException
    from feast.types import Bool, Float32, Float64, Int32, Int64

    key, numbers = KEYS[service], (Float32, Float64, Int32, Int64, Bool)
    try:
        views = store.get_feature_service(service).feature_view_projections
    except FeastObjectNotFoundException as problem:
        raise BadService(f"the feature repo of {store.project} has no FeatureService {service!r}: add one to its features.py") from problem
    names: list[str] = []
    for view in views:
        keys = [column.name for column in store.get_feature_view(view.name).entity_columns]
        if keys != [key]:
            raise BadService(f"the view {view.name} is about {', '.join(keys) or 'nothing'}, but the service {service!r} reads by {key}")
        for field in view.features:
            if field.dtype not in numbers:
                raise BadService(f"the feature {field.name} of the view {view.name} is a {field.dtype}: rankers read numbers, make it one")
            if field.name in names:
                raise BadService(f"the service {service!r} has two features {field.name!r}: give one of them another name")
            names.append(field.name)
    return tuple(names)


def online_layout(store: Any) -> dict[str, Any]:
    """Where a user's row lies in the online store, as a bundle tells its server (`serving.state.feast_row.Layout`)."""
    views = store.get_feature_service("users").feature_view_projections
    named = [[view.name, [field.name for field in view.features]] for view in views]
    return {"project": store.project, "key": KEYS["users"], "views": named}


def features_at(store: Any, service: str, ids: list[str], cut: datetime, names: tuple[str, ...]) -> NDArray[np.float32]:
    """(len(ids), len(names)) features as of `cut`, in the order asked; NaN where the store knows none. Raises `LostRows`."""
    import pandas as pd

    key = KEYS[service]

    asked = pd.DataFrame(
        {key: ids, "row": np.arange(len(ids)), "event_timestamp": pd.Series([cut] * len(ids), dtype="datetime64[us, UTC]")}
    )
    answer = store.get_historical_features(entity_df=asked, features=store.get_feature_service(service)).to_arrow()
    rows = answer["row"].to_numpy()
    if len(rows) != len(ids) or not np.array_equal(np.sort(rows), np.arange(len(ids))):
        raise LostRows(f"asked the service {service} for {len(ids)} rows, got {len(rows)}: the offline store loses rows; use type duckdb")
    frame = np.empty((len(ids), len(names)), np.float32)
    for position, name in enumerate(names):
        frame[rows, position] = answer[name].to_numpy(zero_copy_only=False).astype(np.float32)
    return frame
