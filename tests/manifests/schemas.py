"""Objects against the schemas of the pinned versions: Kubernetes' own OpenAPI, KServe's from the models of its SDK, others' here.

    python -m tests.manifests.schemas kserve < OBJECTS.json      what is wrong with them, a line each

KServe's check is a process of its own: importing kserve parses `sys.argv`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator

KUBERNETES = "1.36"
KSERVE_GROUP = "serving.kserve.io"
GATEWAY_GROUP = "gateway.networking.k8s.io"
TRAINER_GROUP = "trainer.kubeflow.org"
_NAME = {"type": "string", "minLength": 1}
_REFERENCE = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": dict.fromkeys(("group", "kind", "name", "namespace", "sectionName"), _NAME)
    | {"port": {"type": "integer"}, "weight": {"type": "integer", "minimum": 0}},
}
_MATCH = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "path": {
            "type": "object",
            "required": ["type", "value"],
            "additionalProperties": False,
            "properties": {"type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]}, "value": {"type": "string", "pattern": "^/"}},
        }
    },
}
HTTP_ROUTE = {  # of v1 what we write; a route that needs more adds it here
    "type": "object",
    "required": ["parentRefs", "rules"],
    "additionalProperties": False,
    "properties": {
        "parentRefs": {"type": "array", "minItems": 1, "items": _REFERENCE},
        "hostnames": {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}},
        "rules": {
            "type": "array",
            "maxItems": 16,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "matches": {"type": "array", "maxItems": 64, "items": _MATCH},
                    "backendRefs": {"type": "array", "minItems": 1, "items": _REFERENCE},
                },
            },
        },
    },
}


def _exactly(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "additionalProperties": False, "properties": properties}


_LABELS = _exactly((), labels={"type": "object", "additionalProperties": {"type": "string"}})
_TEXTS = {"type": "array", "items": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 1}
_JOB = _exactly(
    ("spec",), metadata=_LABELS, spec=_exactly(("template",), template=_exactly(("spec",), metadata=_LABELS, spec={"type": "object"}))
)
TRAINER = {  # of v1alpha1 (v2.3) what we write; the pod's own spec is held against Kubernetes'
    "TrainJob": _exactly(
        ("runtimeRef",),
        suspend={"type": "boolean"},
        runtimeRef=_exactly(
            ("name",), name=_NAME, apiGroup={"const": TRAINER_GROUP}, kind={"enum": ["TrainingRuntime", "ClusterTrainingRuntime"]}
        ),
        trainer=_exactly((), image=_NAME, command=_TEXTS, args=_TEXTS, numNodes=_COUNT, numProcPerNode=_COUNT),
    ),
    "TrainingRuntime": _exactly(
        ("template",),
        mlPolicy=_exactly((), numNodes=_COUNT, torch=_exactly((), numProcPerNode=_COUNT)),
        template=_exactly(
            ("spec",),
            spec=_exactly(
                ("replicatedJobs",),
                failurePolicy=_exactly((), maxRestarts=_COUNT),
                replicatedJobs={"type": "array", "minItems": 1, "items": _exactly(("name", "template"), name=_NAME, template=_JOB)},
            ),
        ),
    ),
}


def faults(objects: list[dict[str, Any]]) -> list[str]:
    """What no API server of the pinned versions would take."""
    found = []
    for one in objects:
        group = one["apiVersion"].rpartition("/")[0]
        if group == GATEWAY_GROUP:
            found += _by_schema(HTTP_ROUTE, one)
        elif group == TRAINER_GROUP:
            found += _by_schema(TRAINER[one["kind"]], one) or _pods_of(one)
        elif group != KSERVE_GROUP:
            found += _kubernetes(one)
    return found + _kserve([one for one in objects if one["apiVersion"].startswith(KSERVE_GROUP)])


def _by_schema(schema: dict[str, Any], one: dict[str, Any]) -> list[str]:
    return [f"{_named(one)}: {'.'.join(map(str, e.path))}: {e.message}" for e in Draft202012Validator(schema).iter_errors(one["spec"])]


def _pods_of(one: dict[str, Any]) -> list[str]:
    """What is wrong with the pods that a runtime of Kubeflow Trainer describes; a job of it has none."""
    jobs = one["spec"].get("template", {"spec": {"replicatedJobs": []}})["spec"]["replicatedJobs"]
    pods = ({"apiVersion": "v1", "kind": "Pod", **job["template"]["spec"]["template"]} for job in jobs)
    return [told for pod in pods for told in _kubernetes({**pod, "metadata": {**pod["metadata"], "name": _named(one)}})]


def _kubernetes(one: dict[str, Any]) -> list[str]:
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as problem:
        return [f"{_named(one)}: {problem}"]
    return []


def _kserve(objects: list[dict[str, Any]]) -> list[str]:
    if not objects:
        return []
    command = [sys.executable, "-m", "tests.manifests.schemas", "kserve"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, check=True, cwd=root)
    return done.stdout.splitlines()


def _named(one: dict[str, Any]) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def wrong(kind: str, value: Any, models: dict[str, Any], where: str) -> list[str]:
    """What in `value` is not of the SDK's type `kind`: unknown fields, missing ones, other types."""
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{where}: expected a list, got {value!r}"]
        return [line for at, one in enumerate(value) for line in wrong(match[1], one, models, f"{where}[{at}]")]
    if match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        if not isinstance(value, dict):
            return [f"{where}: expected a mapping, got {value!r}"]
        return [line for key, one in value.items() for line in wrong(match[1], one, models, f"{where}.{key}")]
    if kind in models:
        return _wrong_fields(models[kind], value, models, where)
    simple = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(kind)
    return [f"{where}: expected {kind}, got {value!r}"] if simple and not isinstance(value, simple) else []


def _wrong_fields(model: Any, value: Any, models: dict[str, Any], where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: expected {model.__name__}, got {value!r}"]
    names = {json_name: (name, model.openapi_types[name]) for name, json_name in model.attribute_map.items()}
    found = [f"{where}.{key}: {model.__name__} has no such field" for key in value.keys() - names.keys()]
    for key in value.keys() & names.keys():
        found += wrong(names[key][1], value[key], models, f"{where}.{key}")
    try:
        model(**{names[key][0]: one for key, one in value.items() if key in names})
    except ValueError as problem:  # a field that must not be missing, a value outside its range
        found.append(f"{where}: {problem}")
    return found


def _main() -> None:
    import kserve.models
    import kubernetes.client.models

    models = {**vars(kubernetes.client.models), **vars(kserve.models)}
    for one in json.load(sys.stdin):
        kind = {"v1beta1": "V1beta1", "v1alpha1": "V1alpha1"}[one["apiVersion"].rpartition("/")[2]] + one["kind"]
        for line in wrong(kind, one, models, _named(one)):
            print(line)


if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    _main()
