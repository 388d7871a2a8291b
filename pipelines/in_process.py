"""The pipeline's steps in this process, one after another: no start of Python and no import of torch or Feast for each of them."""

import gc
import re
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] == true")
Json = Mapping[str, Any]


def run_in_process(pipeline: Any, arguments: Json, folder: Path, steps: Json | None = None) -> None:
    """Call each task's Python function in the order of the compiled graph; its outputs land in `<folder>/<task>/<output>`.

    Knows pipelines of Python components and of branches on a truth value, which is what ours are.
    `steps`: the components by name; none: those of `pipelines.training`.
    """
    from google.protobuf.json_format import MessageToDict

    from pipelines.training import STEPS

    spec = MessageToDict(pipeline.pipeline_spec)
    declared = spec["root"]["inputDefinitions"].get("parameters", {})
    values = {name: given.get("defaultValue") for name, given in declared.items()} | dict(arguments)
    _Graph(spec["components"], folder, STEPS if steps is None else steps).run(spec["root"]["dag"], values, {})


class _Graph:
    """The components of one pipeline, and where their outputs go."""

    def __init__(self, components: Json, folder: Path, steps: Json) -> None:
        self.components, self.folder, self.steps = components, folder, steps

    def run(self, dag: Json, values: Json, artifacts: Json) -> None:
        """One level: its tasks by what they need. `values`, `artifacts`: what the level above hands in, by name."""
        tasks: Json = dag["tasks"]
        told: dict[str, Any] = {}
        order = TopologicalSorter({name: sorted(tasks[name].get("dependentTasks", ())) for name in sorted(tasks)})
        for name in order.static_order():
            task = tasks[name]
            given = task.get("inputs", {})
            parameters = {kind: _value(source, values, told) for kind, source in given.get("parameters", {}).items()}
            read = {kind: self._artifact(source, artifacts) for kind, source in given.get("artifacts", {}).items()}
            component = self.components[task["componentRef"]["name"]]
            if not _wanted(task, parameters):
                continue
            if "dag" in component:
                self.run(component["dag"], parameters, read)
            else:
                told[name] = self._call(name, task["componentRef"]["name"], component, parameters, read)
                gc.collect()  # a step's frames are of no use to the next

    def _call(self, name: str, reference: str, component: Json, parameters: Json, read: Json) -> Any:
        outputs = component.get("outputDefinitions", {}).get("artifacts", {})
        made = {kind: self._output(name, kind, said["artifactType"]["schemaTitle"]) for kind, said in outputs.items()}
        return self.steps[reference.removeprefix("comp-")].python_func(**parameters, **read, **made)

    def _output(self, task: str, kind: str, title: str) -> Any:
        from kfp import dsl

        place = self.folder / task / kind
        place.parent.mkdir(parents=True, exist_ok=True)
        return getattr(dsl, title.removeprefix("system."))(uri=str(place))

    def _artifact(self, source: Json, artifacts: Json) -> Any:
        from kfp import dsl

        if "componentInputArtifact" in source:
            return artifacts[source["componentInputArtifact"]]
        made = source["taskOutputArtifact"]
        return dsl.Artifact(uri=str(self.folder / made["producerTask"] / made["outputArtifactKey"]))


def _value(source: Json, values: Json, told: Json) -> Any:
    if "componentInputParameter" in source:
        return values[source["componentInputParameter"]]
    if "taskOutputParameter" in source:
        return told[source["taskOutputParameter"]["producerTask"]]
    return source["runtimeValue"]["constant"]


def _wanted(task: Json, parameters: Json) -> bool:
    """Whether the branch's condition holds: `x == true`, or `!(x == true)`."""
    condition = task.get("triggerPolicy", {}).get("condition", "")
    if not condition:
        return True
    found = _CONDITION.search(condition)
    if found is None:
        raise NotImplementedError(f"a branch on {condition!r}: only truth values are known here")
    return bool(parameters[found[1]]) is not condition.startswith("!")
