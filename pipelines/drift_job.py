"""The watch on a cluster: `shortlist drift-job shop --host URL --home DIR`, as the CronJob `drift` runs it.

The cycle, its journal and its policy are those of `shortlist watch`; the champion is MLflow's, the tables are read where the pipelines
read them, and a retraining is a run of the pipelines, with its cause.
"""

from pathlib import Path
from typing import Any

from components.data.ingest import ingest
from components.data.served import collect
from components.monitoring.drift import drift
from components.release.drift_record import record_drift
from components.release.promotion import promote as promote_bundle
from components.release.registry import CHALLENGER, CHAMPION, digest_in, holder, model_name, open_registry
from components.release.releases import released
from components.release.sync import sync
from pipelines.retraining import middle_of
from pipelines.submit import submit
from pipelines.watch import Entry, Policy, Steps, watch_once
from serving.remote import local
from serving.system import load_system


def drift_job(
    system: str,
    data: str,
    events: str,
    fast: bool,
    gpu: bool,
    home: Path,
    *,
    image: str,
    host: str,
    registry: str,
    policy: Policy,
    promote_passed: bool,
) -> Entry:
    """One cycle; the last entry of the journal under `home`.

    `data`: s3://… of the tables, empty: the system's own ingest. `image`: of the retraining's steps, empty: the one `make images` tags.
    """
    folder = home / "watch" / load_system(system).name
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"data": data, "fast": fast, "events": events}
    steps = Steps(
        lambda: _verdict(system, data, events, home, folder / "latest", registry),
        lambda cycle, found: {"cycle": cycle, "held": _held(system, registry), **asked, "until": middle_of(found["window"])},
        lambda arguments: _trained(system, host, registry, arguments, image, gpu),
        lambda made: _promoted(system, home, registry, made) if promote_passed else False,
        lambda why: print(f"the watch has stopped: {why}", flush=True),
    )
    return watch_once(steps, policy, folder)


def _verdict(system: str, data: str, events: str, home: Path, out: Path, registry: str) -> Entry:
    """What `shortlist drift` says of the registry's champion, and a run of MLflow that keeps it."""
    loaded = load_system(system)
    print(sync(loaded, home, registry).sentence, flush=True)
    tables = out / "tables"
    ingest(loaded, tables, Path(local(data)) if data else None)
    found = released(system, home)
    served = collect(events, out / "served") if events else None
    verdict = drift(loaded, found.bundle, found.users, tables, served, out)
    record_drift(loaded, verdict, out, home, registry)
    return verdict


def _trained(system: str, host: str, registry: str, arguments: Entry, image: str, gpu: bool) -> Entry:
    """A run of the pipelines to its end, and what it registered; a job that is ended meanwhile finds its run again by the cycle's name."""
    before, given = arguments["held"], {name: value for name, value in arguments.items() if name not in ("cycle", "held")}
    called = f"{load_system(system).name} {arguments['cycle']} ({given['cause']})"
    if not submit(system, host, given, image, gpu, called=called):
        raise ValueError(f"the retraining {called!r} on {host} failed: its page says at which step; the next job asks for another")
    after = _held(system, registry)
    fresh = [digest for alias, digest in after.items() if before.get(alias) != digest]
    bundle = fresh[0] if fresh else after.get(CHALLENGER) or after.get(CHAMPION, "")
    return {"bundle": bundle, "passed": bool(fresh)}


def _held(system: str, registry: str) -> dict[str, str]:
    """The bundle behind each alias."""
    name = model_name(load_system(system))
    with open_registry(None, registry) as client:
        found = {alias: holder(client, name, alias) for alias in (CHALLENGER, CHAMPION)}
    return {alias: digest_in(version) for alias, version in found.items() if version is not None}


def _promoted(system: str, home: Path, registry: str, made: dict[str, Any]) -> bool:
    promote_bundle(load_system(system), home, registry, which=str(made["bundle"]))
    return True
