"""The step `retrieval`, as Kubeflow sees it."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.step import component


@component
def retrieval(
    system: str,
    fast: bool,
    seed: int,
    home: str,
    features: Input[Dataset],
    start: Input[Artifact],
    out: Output[Model],
    last: Output[Model],
) -> None:
    """Every candidate source, fitted on each cut; `last`: those of the last cut, and the towers a daily training goes on from."""
    from components.moved import last_sources
    from components.retrieval.fit import fit as work
    from components.step import rival_in, run_step

    inputs = {"features": features.path, "start": rival_in(start.path)}
    config = {"system": system, "fast": fast, "seed": seed}
    out.metadata.update(run_step("retrieval", work, inputs, out.path, config, home))
    last_sources(out.path, last.path)
