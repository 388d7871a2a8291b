"""The step `ranking`, as Kubeflow sees it."""

from kfp.dsl import Artifact, Input, Output

from components.step import component


@component
def ranking(
    system: str, fast: bool, seed: int, home: str, features: Input[Artifact], retrieval: Input[Artifact], out: Output[Artifact]
) -> None:
    """The light and the heavy ranker, learnt from what retrieval would have found at each cut."""
    from components.ranking.fit import fit as work
    from components.step import run_step

    inputs = {"features": features.path, "retrieval": retrieval.path}
    out.metadata.update(run_step("ranking", work, inputs, out.path, {"system": system, "fast": fast, "seed": seed}, home))
