"""The step `ranking`, as Kubeflow sees it."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.step import component


@component
def ranking(
    system: str,
    fast: bool,
    seed: int,
    home: str,
    features: Input[Dataset],
    retrieval: Input[Model],
    start: Input[Artifact],
    out: Output[Model],
) -> None:
    """The light and the heavy ranker, learnt from what retrieval would have found at each cut."""
    from components.ranking.fit import fit as work
    from components.step import rival_in, run_step

    inputs = {"features": features.path, "retrieval": retrieval.path, "start": rival_in(start.path)}
    out.metadata.update(run_step("ranking", work, inputs, out.path, {"system": system, "fast": fast, "seed": seed}, home))
