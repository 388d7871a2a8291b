"""`shortlist up` and `down`: a cluster on this machine with everything on it, from nothing or from wherever it stands; and away again.

Every step looks first and does only what is missing, so the same command goes on after whatever went wrong. It says what it waits for; when
that does not come, which object it was, its events and its last lines.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from components.code_digest import ROOT
from components.step import IMAGE

NAME = "shortlist"
SPACE = "shortlist"
SERVING = "dev.local/shortlist-serving:0.1.0"
_LOADED = "/var/lib/containerd/shortlist-images"  # in the node: which images it was given
_PORTS = {"gateway": 30080, "pipelines": 30888, "MLflow": 30500, "S3": 30900}
Say = Callable[[str], None]


class ClusterFailed(ValueError):
    """A step of bringing the cluster up did not come to its end; the message names the object and why."""


def bring_up(system: str, platform: str, overlay: Path, minutes: float, say: Say) -> None:
    """Cluster, images, platform, ours, and the first training of `system` (empty: none); then where all of it answers.

    `platform`: `install`, or `skip` where somebody has. Pods are ready once there is a bundle: after the training.
    Raises `ClusterFailed`, `pipelines.submit.PipelinesUnavailable`.
    """
    from pipelines.submit import submit

    _tools()
    _created(say)
    _images(say)
    _platform(platform, say)
    say(f"applying {overlay}")
    _run("kubectl", "apply", "-k", str(ROOT / overlay))
    pipelines = address(_PORTS["pipelines"])
    if system and not _trained() and not submit(system, pipelines, {"fast": True, "cause": "the first one"}, show=say):
        raise ClusterFailed(f"the first training of {system} failed: {pipelines} and `kubectl -n kubeflow get pods` say where")
    ready(SPACE, minutes, say)
    for line in told({name: address(port) for name, port in _PORTS.items()}, system or "shop"):
        typer.echo(line)


def told(addresses: dict[str, str], system: str) -> list[str]:
    """Where things answer, and what to try."""
    gateway, pipelines, mlflow, s3 = (addresses[name] for name in _PORTS)
    return [
        f"Lists:      {gateway}   (its contract: {gateway}/openapi.json)",
        f"Pipelines:  {pipelines}",
        f"MLflow:     {mlflow}",
        f"S3:         {s3}   (AWS_ENDPOINT_URL, for s3:// addresses)",
        f"Train:      shortlist pipeline submit {system} --host {pipelines}",
        f"Try:        curl -s {gateway}/v1/recommendations -H 'content-type: application/json' -d '{{\"user_id\": \"718\"}}'",
    ]


def down(say: Say) -> None:
    """Delete the cluster, if there is one."""
    _tools()
    if NAME in _run("kind", "get", "clusters").split():
        say(f"deleting the cluster {NAME}")
        _run("kind", "delete", "cluster", "--name", NAME)
    else:
        say(f"there is no cluster {NAME}")


def _trained() -> bool:
    """Whether a bundle was released here: a second `up` trains no second time."""
    found = [one["spec"]["predictor"]["model"].get("storageUri") for one in _objects("inferenceservices", SPACE)]
    return bool(found) and all(found)


def ready(space: str, minutes: float, say: Say) -> None:
    """Wait until every pod of the namespace is ready. Raises `ClusterFailed` with the first that is not, and why."""
    ends, told = time.monotonic() + 60 * minutes, ""
    while True:
        waiting = [pod for pod in _objects("pods", space) if not settled(pod)]
        if not waiting and _objects("pods", space):
            return
        names = ", ".join(sorted(pod["metadata"]["name"] for pod in waiting)) or "its first pod"
        if names != told:
            say(f"waiting in {space} for {names}")
            told = names
        if time.monotonic() > ends:
            raise ClusterFailed(_why(space, waiting))
        time.sleep(2)


def settled(pod: dict[str, Any]) -> bool:
    """Ready, or done, or on its way out."""
    status = pod.get("status", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
    return status.get("phase") == "Succeeded" or conditions.get("Ready") == "True" or "deletionTimestamp" in pod["metadata"]


def _why(space: str, waiting: list[dict[str, Any]]) -> str:
    """The first pod that is not ready: what its containers wait for, its warnings, its last lines."""
    if not waiting:
        return f"no pod came up in {space}: kubectl -n {space} get events"
    name = waiting[0]["metadata"]["name"]
    states = waiting[0].get("status", {})
    held = [
        f"{one['name']}: {reason.get('reason', '')} {reason.get('message', '')}".strip()
        for one in [*states.get("initContainerStatuses", []), *states.get("containerStatuses", [])]
        if not one.get("ready") and (reason := one["state"].get("waiting") or one["state"].get("terminated"))
    ]
    warnings = [one["message"] for one in _objects("events", space) if one["type"] == "Warning" and one["involvedObject"]["name"] == name]
    lines = subprocess.run(
        ["kubectl", "-n", space, "logs", name, "--all-containers", "--tail=5"], capture_output=True, text=True
    ).stdout.splitlines()
    parts = [f"pod {name} in {space} did not get ready", *held, *dict.fromkeys(warnings[-3:]), *lines[-5:]]
    return "; ".join(parts) + f". Look: kubectl -n {space} describe pod {name}"


def _tools() -> None:
    missing = [name for name in ("docker", "kind", "kubectl") if shutil.which(name) is None]
    if missing:
        raise ClusterFailed(f"{' and '.join(missing)} cannot be found: install them, and start the Docker engine")


def _created(say: Say) -> None:
    if NAME not in _run("kind", "get", "clusters").split():
        say(f"creating the cluster {NAME} (kind-config.yaml)")
        _run("kind", "create", "cluster", "--config", str(ROOT / "kind-config.yaml"))
    _run("kubectl", "config", "use-context", f"kind-{NAME}")


def _images(say: Say) -> None:
    """Give the nodes what they lack of our two images."""
    for image in (IMAGE, SERVING):
        found = subprocess.run(["docker", "image", "inspect", "-f", "{{.Id}}", image], capture_output=True, text=True)
        if found.returncode:
            raise ClusterFailed(f"the engine has no image {image}: run `make images`")
        line = f"{image} {found.stdout.strip()}"
        for node in _run("kind", "get", "nodes", "--name", NAME).split():
            if line not in _run("docker", "exec", node, "sh", "-c", f"cat {_LOADED} 2>/dev/null || true").splitlines():
                say(f"loading {image} into {node}")
                _run("kind", "load", "docker-image", image, "--name", NAME, "--nodes", node)
                _run("docker", "exec", node, "sh", "-c", f"echo '{line}' >> {_LOADED}")


def _platform(choice: str, say: Say) -> None:
    """Install the upstreams, or see that they are there."""
    if choice == "install":
        say("installing the platform (manifests/platform/install)")
        done = subprocess.run([str(ROOT / "manifests" / "platform" / "install")])
        if done.returncode:
            raise ClusterFailed("the platform did not come up: what it waited for is above")
    for kind in ("inferenceservices.serving.kserve.io", "httproutes.gateway.networking.k8s.io"):
        if subprocess.run(["kubectl", "get", "crd", kind], capture_output=True).returncode:
            raise ClusterFailed(f"the cluster does not know {kind}: leave --platform skip away, and the platform is installed")


def address(port: int) -> str:
    """Where this machine finds a NodePort: on the loopback where kind-config.yaml maps it, else at the node's address."""
    node = f"{NAME}-control-plane"
    mapped = subprocess.run(["docker", "port", node, f"{port}/tcp"], capture_output=True, text=True).stdout.split()
    if mapped:
        return f"http://{mapped[0]}"
    inside = _run("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", node).strip()
    return f"http://{inside}:{port}"


def _objects(kind: str, space: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_run("kubectl", "-n", space, "get", kind, "-o", "json"))["items"]
    return found


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-600:]
        raise ClusterFailed(f"`{' '.join(command[:4])} …` failed: {said}")
    return done.stdout
