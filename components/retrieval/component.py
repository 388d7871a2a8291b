"""The step `retrieval`, as Kubeflow sees it."""

from kfp.dsl import Artifact, Input, Output

from components.step import component


@component
def retrieval(system: str, fast: bool, seed: int, home: str, features: Input[Artifact], out: Output[Artifact]) -> None:
    """Every candidate source, fitted on each cut."""
    from components.retrieval.fit import fit as work
    from components.step import run_step

    config = {"system": system, "fast": fast, "seed": seed}
    out.metadata.update(run_step("retrieval", work, {"features": features.path}, out.path, config, home))
