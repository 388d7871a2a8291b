"""The step `features`, as Kubeflow sees it."""

from kfp.dsl import Artifact, Input, Output

from components.step import component


@component
def features(system: str, until: str, fast: bool, home: str, tables: Input[Artifact], out: Output[Artifact]) -> None:
    """What was known of every item and user at each cut before `until`."""
    from components.features.build import build as work
    from components.features.moments import cuts_of, moment
    from components.step import run_step

    config = {"system": system, "until": moment(system, tables.path, until), "cuts": cuts_of(system, fast)}
    out.metadata.update(run_step("features", work, {"tables": tables.path}, out.path, config, home))
