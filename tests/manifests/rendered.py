"""What Kustomize makes of the manifests: every overlay, and every option laid over it."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
OVERLAYS = ("kind", "one-bundle", "production")
OPTIONS = tuple(sorted(path.parent.name for path in (MANIFESTS / "components").glob("*/kustomization.yaml")))
Object = dict[str, Any]


@cache
def rendered(overlay: str) -> tuple[Object, ...]:
    """The objects of an overlay."""
    return _built(MANIFESTS / "overlays" / overlay)


@cache
def platform_services() -> tuple[Object, ...]:
    """MLflow and Redis as a cluster for trying gets them."""
    return _built(MANIFESTS / "platform" / "services")


@cache
def with_option(option: str) -> tuple[Object, ...]:
    """The base with this option alone."""
    with tempfile.TemporaryDirectory() as folder:
        base, chosen = (os.path.relpath(MANIFESTS / part, folder) for part in ("base", f"components/{option}"))
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump({"resources": [base], "components": [chosen]}))
        return _built(Path(folder))


@cache
def with_menu_line(overlay: str, option: str) -> tuple[Object, ...]:
    """The overlay with a line of its menu taken."""
    with tempfile.TemporaryDirectory() as folder:
        text = (MANIFESTS / "overlays" / overlay / "kustomization.yaml").read_text()
        taken = re.sub(rf"# (- \.\./\.\./components/{option})\b.*", r"\1", text)  # without the word beside it
        assert taken != text, f"{overlay} does not list {option}"
        shutil.copy(MANIFESTS / "overlays" / overlay / "image-fields.yaml", folder)
        Path(folder, "kustomization.yaml").write_text(taken.replace("- ../../", f"- {os.path.relpath(MANIFESTS, folder)}/"))
        return _built(Path(folder))


def _built(folder: Path) -> tuple[Object, ...]:
    made = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return tuple(one for one in yaml.safe_load_all(made.stdout) if one)


def named(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def of_kind(objects: tuple[Object, ...], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object, Object]]:
    """Name, labels and pod spec of everything that becomes pods. Of an InferenceService: its predictor with its runtime's containers."""
    runtimes = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "ServingRuntime")}
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield named(one), one["spec"]["template"]["metadata"]["labels"], one["spec"]["template"]["spec"]
        elif one["kind"] == "TrainingRuntime":
            for job in one["spec"]["template"]["spec"]["replicatedJobs"]:
                template = job["template"]["spec"]["template"]
                yield f"Job/{one['metadata']['name']}", template["metadata"]["labels"], template["spec"]
        elif one["kind"] == "CronJob":
            template = one["spec"]["jobTemplate"]["spec"]["template"]
            yield named(one), template["metadata"]["labels"], template["spec"]
        elif one["kind"] == "InferenceService":
            predictor = one["spec"]["predictor"]
            runtime = runtimes[predictor["model"]["runtime"]]
            yield named(one), one["metadata"]["labels"], {**runtime, **{k: v for k, v in predictor.items() if k != "model"}}


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]
