"""The step `retrieval`, as Kubeflow sees it."""

from kfp.dsl import Dataset, Input, Model, Output

from components.step import component


@component
def retrieval(system: str, fast: bool, seed: int, home: str, features: Input[Dataset], out: Output[Model], last: Output[Model]) -> None:
    """Every candidate source, fitted on each cut; `last`: those of the last cut alone."""
    from components.moved import last_sources
    from components.retrieval.fit import fit as work
    from components.step import run_step

    config = {"system": system, "fast": fast, "seed": seed}
    out.metadata.update(run_step("retrieval", work, {"features": features.path}, out.path, config, home))
    last_sources(out.path, last.path)
