"""What is written into the InferenceServices of a system and read out of them; who stands where is the one truth of the split.

A bundle is a variant of both services, named after its digest: `b` and twelve letters. Its Deployment and Service are then named so too,
`<system>-retrieval-b0123456789ab-predictor`, before a promotion and after it, and its pods are not restarted by one. For the same reason
nothing of a service changes during a rollout that KServe copies into pods: what belongs to a variant stands in that variant's own labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.release.rollout_state import BundleRef, Placed

ROLES = ("retrieval", "ranking")
ROLLOUT_LABEL, VERSION_LABEL = "shortlist.dev/rollout", "shortlist.dev/version"
BUCKET = "models"
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """One bundle's pods in one service."""

    bundle: BundleRef
    percent: int  # what the specification says; of the stable one what is left
    ready: bool
    weight: int  # what both routes give it now


@dataclass(frozen=True)
class Standing:
    """Who stands where in one service, as it says itself. `stable` None: it has no bundle yet."""

    stable: Variant | None
    beside: tuple[Variant, ...] = ()


def service(system: str, role: str) -> str:
    """Name of the InferenceService."""
    return f"{system}-{role}"


def variant_name(digest: str) -> str:
    """What KServe calls the predictor of a bundle."""
    return f"b{digest[:12]}"


def address(system: str, role: str, digest: str, namespace: str) -> str:
    """HOST:PORT of a bundle's own pods. The gateway splits by request, and a user is to stay on one side."""
    return f"{service(system, role)}-{variant_name(digest)}-predictor.{namespace}.svc:80"


def bundle_uri(system: str, digest: str) -> str:
    return f"s3://{BUCKET}/{system}/{digest}/"


def applied(system: str, role: str, namespace: str, placed: Placed, now: Object) -> dict[str, Any]:
    """The fields of the service that are ours, for a server-side apply; `now`: the service as it is. `placed.stable` must be there."""
    assert placed.stable is not None
    model_format = now["spec"]["predictor"]["model"]["modelFormat"]
    spec: dict[str, Any] = {"predictor": _predictor(system, placed.stable, model_format)}
    if placed.beside is not None:
        spec["canary"] = [{"trafficPercent": placed.percent, "predictor": _predictor(system, placed.beside, model_format)}]
    metadata = {"name": service(system, role), "namespace": namespace}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata, "spec": spec}


def _predictor(system: str, ref: BundleRef, model_format: Object) -> dict[str, Any]:
    model = {"modelFormat": dict(model_format), "storageUri": bundle_uri(system, ref.digest), "args": ["--digest", f"sha256:{ref.digest}"]}
    labels = {ROLLOUT_LABEL: ref.rollout, VERSION_LABEL: ref.version}
    return {"name": variant_name(ref.digest), "labels": labels, "model": model}


def standing(now: Object, routes: Sequence[Object]) -> Standing:
    """Who stands where, from the service and its two HTTPRoutes."""
    spec, status = now["spec"], now.get("status", {})
    beside = tuple(_beside(now["metadata"]["name"], entry, status, routes) for entry in spec.get("canary") or ())
    found = _ref(spec["predictor"])
    if found is None:
        return Standing(None, beside)
    seen = status.get("observedGeneration", 0) >= now["metadata"].get("generation", 0)
    ready = seen and any(one["type"] == "PredictorReady" and one["status"] == "True" for one in status.get("conditions", ()))
    name = f"{now['metadata']['name']}-{spec['predictor'].get('name', '')}-predictor"
    return Standing(Variant(found, 100 - sum(one.percent for one in beside), ready, _weight(name, routes)), beside)


def _beside(service_name: str, entry: Object, status: Object, routes: Sequence[Object]) -> Variant:
    name, ref = entry["predictor"]["name"], _ref(entry["predictor"])
    ready = any(one.get("name") == name and one.get("ready") for one in status.get("canaryStatuses") or ())
    return Variant(ref or BundleRef(""), int(entry.get("trafficPercent", 0)), ready, _weight(f"{service_name}-{name}-predictor", routes))


def _weight(backend: str, routes: Sequence[Object]) -> int:
    """Of a backend, in every route alike; -1 where they differ. One that has no weight but is named alone gets everything."""
    found = set()
    for route in routes:
        named = {one["name"]: one.get("weight") for rule in route["spec"]["rules"] for one in rule["backendRefs"]}
        alone = 100 if len(named) == 1 and backend in named else 0
        found.add(int(named[backend]) if named.get(backend) is not None else alone)
    return found.pop() if len(found) == 1 else -1


def _ref(predictor: Object) -> BundleRef | None:
    uri = str(predictor.get("model", {}).get("storageUri") or "")
    labels = predictor.get("labels") or {}
    if not uri.startswith("s3://"):
        return None
    return BundleRef(uri.rstrip("/").rpartition("/")[2], labels.get(VERSION_LABEL, ""), labels.get(ROLLOUT_LABEL, ""))
