"""The pipeline's steps in this process, one after another: no start of Python and no import of torch or Feast for each of them."""

import gc
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any


def run_in_process(pipeline: Any, arguments: Mapping[str, Any], folder: Path) -> None:
    """Call each task's Python function in the order of the compiled graph; its output lands in `<folder>/<task>/out`.

    Knows flat pipelines of Python components, which is what ours are.
    """
    from google.protobuf.json_format import MessageToDict
    from kfp import dsl

    from pipelines.training import STEPS

    root = pipeline.pipeline_spec.root
    declared = MessageToDict(root.input_definitions).get("parameters", {})
    values = {name: spec.get("defaultValue") for name, spec in declared.items()} | dict(arguments)
    tasks = {name: MessageToDict(task) for name, task in root.dag.tasks.items()}
    order = TopologicalSorter({name: sorted(tasks[name].get("dependentTasks", ())) for name in sorted(tasks)})
    for name in order.static_order():
        task = tasks[name]
        given = task.get("inputs", {})
        parameters = {kind: _value(source, values) for kind, source in given.get("parameters", {}).items()}
        artifacts = {kind: dsl.Artifact(uri=str(_output(folder, source))) for kind, source in given.get("artifacts", {}).items()}
        function = STEPS[task["componentRef"]["name"].removeprefix("comp-")].python_func
        function(**parameters, **artifacts, out=dsl.Artifact(uri=str(folder / name / "out")))
        gc.collect()  # a step's frames are of no use to the next


def _value(source: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    if "componentInputParameter" in source:
        return values[source["componentInputParameter"]]
    return source["runtimeValue"]["constant"]


def _output(folder: Path, source: Mapping[str, Any]) -> Path:
    return folder / str(source["taskOutputArtifact"]["producerTask"]) / "out"
