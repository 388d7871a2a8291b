"""The one door to Kubernetes: a system's InferenceServices, its rollout's record (a ConfigMap) and its Events.

Written by server-side apply under a field manager of our own, so whoever applies the manifests again takes nothing of it away.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from kubernetes import client, config
from urllib3.exceptions import HTTPError

from components.release.rollout import Unreachable
from components.release.rollout_record import Conflict, RolloutLine, RolloutRecord
from components.release.rollout_state import Placed, told
from components.release.services import Standing, applied, service, standing

MANAGER = "shortlist-rollout"
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SECONDS = 10.0
_ANNOTATION = "shortlist.dev/"


class KubeCluster:
    """`components.release.rollout.Cluster` on a real one. `namespace` empty: the pod's own, or that of the current context."""

    def __init__(self, system: str, namespace: str = "") -> None:
        self._system, self._namespace = system, namespace or _own_namespace()
        self._api = _client()

    @property
    def namespace(self) -> str:
        return self._namespace

    def record(self) -> RolloutRecord:
        found = self._asked("GET", self._config_maps(self._record_name))
        if found is None:
            return RolloutRecord()
        try:
            record = msgspec.json.decode(found.get("data", {}).get("record", "{}"), type=RolloutRecord)
        except msgspec.DecodeError as problem:
            raise Unreachable(f"ConfigMap {self._record_name} holds no record ({problem}): delete it to begin anew") from problem
        return msgspec.structs.replace(record, revision=found["metadata"]["resourceVersion"])

    def write(self, record: RolloutRecord) -> RolloutRecord:
        metadata: dict[str, Any] = {"name": self._record_name, "labels": {"app.kubernetes.io/part-of": "shortlist"}}
        if record.rollout is not None:
            said = {"phase": record.rollout.phase, "percent": str(record.rollout.percent), "told": told(record.rollout)}
            metadata["annotations"] = {_ANNOTATION + name: value for name, value in said.items()}
        data = {"record": msgspec.json.encode(msgspec.structs.replace(record, revision="")).decode()}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        if record.revision:
            metadata["resourceVersion"] = record.revision
            made = self._asked("PUT", self._config_maps(self._record_name), body)
        else:
            made = self._asked("POST", self._config_maps(), body)
        if made is None:
            raise Conflict(f"ConfigMap {self._record_name} was deleted meanwhile")
        return msgspec.structs.replace(record, revision=made["metadata"]["resourceVersion"])

    def standing(self, role: str) -> Standing:
        name = service(self._system, role)
        routes = [self._asked("GET", f"{self._routes}/{route}") for route in (name, f"{name}-predictor")]
        return standing(self._service(role), [route for route in routes if route is not None])

    def place(self, role: str, wanted: Placed) -> None:
        body = applied(self._system, role, self._namespace, wanted, self._service(role))
        path = f"{self._services}/{service(self._system, role)}"
        self._asked("PATCH", path, body, "application/apply-patch+yaml", fieldManager=MANAGER, force="true")

    def event(self, line: RolloutLine, warning: bool) -> None:
        when = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        about = {"kind": "ConfigMap", "apiVersion": "v1", "name": self._record_name, "namespace": self._namespace}
        body = {
            "apiVersion": "v1", "kind": "Event", "type": "Warning" if warning else "Normal",
            "metadata": {"name": f"{self._record_name}.{line.rollout}.{line.number}", "namespace": self._namespace},
            "involvedObject": about, "reason": f"Rollout{line.phase.capitalize()}", "message": line.sentence[:1000],
            "source": {"component": MANAGER}, "firstTimestamp": when, "lastTimestamp": when, "count": 1,
        }  # fmt: skip
        try:
            self._asked("POST", f"/api/v1/namespaces/{self._namespace}/events", body)
        except Conflict:  # told before
            return

    @property
    def _record_name(self) -> str:
        return f"rollout-{self._system}"

    @property
    def _services(self) -> str:
        return f"/apis/serving.kserve.io/v1beta1/namespaces/{self._namespace}/inferenceservices"

    @property
    def _routes(self) -> str:
        return f"/apis/gateway.networking.k8s.io/v1/namespaces/{self._namespace}/httproutes"

    def _config_maps(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps{'/' if name else ''}{name}"

    def _service(self, role: str) -> dict[str, Any]:
        name = service(self._system, role)
        found = self._asked("GET", f"{self._services}/{name}")
        if found is None:
            raise Unreachable(f"namespace {self._namespace} has no InferenceService {name}: apply the manifests")
        return found

    def _asked(self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: str) -> dict[str, Any] | None:
        """The object; None where it is not there. Raises `Unreachable`, and `Conflict` for 409."""
        headers = {"Accept": "application/json", "Content-Type": kind}
        try:
            reply = self._api.call_api(
                path, method, query_params=list(query.items()), header_params=headers, body=body, auth_settings=["BearerToken"],
                _preload_content=False, _return_http_data_only=True, _request_timeout=_SECONDS,
            )  # fmt: skip
        except client.ApiException as problem:
            if problem.status == 404 and method == "GET":
                return None
            if problem.status == 409:
                raise Conflict(f"{method} {path}: {problem.reason}") from problem
            raise Unreachable(f"Kubernetes refused {method} {path}: {problem.status} {_message(problem)}") from problem
        except (HTTPError, OSError) as problem:
            raise Unreachable(f"Kubernetes does not answer {method} {path} ({problem})") from problem
        found: dict[str, Any] = json.loads(reply.data)
        return found


def changed(cluster: KubeCluster, change: Callable[[RolloutRecord], RolloutRecord]) -> RolloutRecord:
    """The record after a person's change, made on whatever the controller wrote last. Raises what `change` raises."""
    for _ in range(20):
        try:
            return cluster.write(change(cluster.record()))
        except Conflict:
            continue
    raise Unreachable("the record is written all the time: try again")


def _client() -> "client.ApiClient":
    """In a pod its ServiceAccount, else the current context. Raises `Unreachable`."""
    try:
        if _NAMESPACE.is_file():
            config.load_incluster_config()
        else:
            config.load_kube_config()
    except (config.ConfigException, OSError) as problem:
        raise Unreachable(f"no cluster to ask ({problem}): point KUBECONFIG at one") from problem
    return client.ApiClient()


def _own_namespace() -> str:
    if _NAMESPACE.is_file():
        return _NAMESPACE.read_text().strip()
    try:
        _, active = config.list_kube_config_contexts()
    except (config.ConfigException, OSError):
        return "default"
    return str(active["context"].get("namespace", "default"))


def _message(problem: "client.ApiException") -> str:
    try:
        return str(json.loads(problem.body)["message"])[:300]
    except (TypeError, ValueError, KeyError):
        return str(problem.reason)
