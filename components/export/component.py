"""The steps `export` and `pack`, as Kubeflow sees them."""

from kfp.dsl import Dataset, Input, Model, Output

from components.step import component


@component
def export(system: str, home: str, features: Input[Dataset], retrieval: Input[Model], ranking: Input[Model], out: Output[Model]) -> None:
    """The models as ONNX graphs, with what can be computed before a request."""
    from components.export.export import export as work
    from components.step import run_step

    inputs = {"features": features.path, "retrieval": retrieval.path, "ranking": ranking.path}
    out.metadata.update(run_step("export", work, inputs, out.path, {"system": system}, home))


@component
def pack(system: str, home: str, features: Input[Dataset], retrieval: Input[Model], export: Input[Model], out: Output[Model]) -> None:
    """One bundle, named by the digest of its content."""
    import json
    from pathlib import Path

    from components.export.pack import pack as work
    from components.step import run_step

    inputs = {"features": features.path, "retrieval": retrieval.path, "export": export.path}
    parents = json.loads(Path(retrieval.path, "retrieval.json").read_text())["started_from"]
    out.metadata.update(run_step("pack", work, inputs, out.path, {"system": system, "parents": tuple(parents)}, home))
