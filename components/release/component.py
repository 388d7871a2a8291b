"""The steps `start`, `champion`, `register`, `record`, `adopt` and `report`, as Kubeflow sees them.

It never skips the first five: the registry is the world outside.
"""

from kfp.dsl import Artifact, Dataset, Input, Model, Output, PipelineTaskFinalStatus

from components.step import component


@component
def champion(system: str, home: str, tracking: str, out: Output[Artifact]) -> None:
    """The bundle a candidate has to beat, as the registry says at this moment; an empty folder when there is none."""
    from components.release.rival import champion as work
    from components.step import run_step

    out.metadata.update(run_step("champion", work, {}, out.path, {"system": system, "home": home, "tracking": tracking}, home=None))


@component
def start(system: str, mode: str, home: str, tracking: str, judged: str, out: Output[Artifact]) -> None:
    """The weights that a daily training goes on from, as the registry says at this moment; an empty folder in the mode "full"."""
    from components.release.start import start as work
    from components.step import run_step

    config = {"system": system, "mode": mode, "home": home, "tracking": tracking, "judged": judged}
    out.metadata.update(run_step("start", work, {}, out.path, config, home=None))


@component
def register(
    system: str,
    home: str,
    tracking: str,
    cause: str,
    tables: Input[Dataset],
    features: Input[Dataset],
    retrieval: Input[Model],
    ranking: Input[Model],
    export: Input[Model],
    bundle: Input[Model],
    metrics: Input[Dataset],
    gate: Input[Artifact],
    out: Output[Artifact],
) -> None:
    """The run and, when the gate passed, a version of the model in the registry. `cause`: why the run was begun, as a tag of it."""
    from components.release.cause import note_cause
    from components.release.register import register as work
    from components.step import bundle_in, run_step, users_of

    inputs = {"bundle": bundle_in(bundle.path), "users": users_of(features.path), "metrics": metrics.path, "gate": gate.path}
    inputs |= {
        "tables": tables.path,
        "features": features.path,
        "retrieval": retrieval.path,
        "ranking": ranking.path,
        "export": export.path,
    }
    config = {"system": system, "home": home, "tracking": tracking}
    out.metadata.update(run_step("register", work, inputs, out.path, config, home=None))
    note_cause(cause, out.path, home, tracking)


@component
def record(
    system: str,
    home: str,
    tracking: str,
    cause: str,
    tables: Input[Dataset],
    features: Input[Dataset],
    retrieval: Input[Model],
    ranking: Input[Model],
    export: Input[Model],
    bundle: Input[Model],
    metrics: Input[Dataset],
    gate: Input[Artifact],
    out: Output[Artifact],
) -> None:
    """The run of a bundle that the gate refused: what was learnt and why it stays behind. No version is made of it."""
    from components.release.cause import note_cause
    from components.release.register import register as work
    from components.step import bundle_in, run_step, users_of

    inputs = {"bundle": bundle_in(bundle.path), "users": users_of(features.path), "metrics": metrics.path, "gate": gate.path}
    inputs |= {
        "tables": tables.path,
        "features": features.path,
        "retrieval": retrieval.path,
        "ranking": ranking.path,
        "export": export.path,
    }
    config = {"system": system, "home": home, "tracking": tracking}
    out.metadata.update(run_step("record", work, inputs, out.path, config, home=None))
    note_cause(cause, out.path, home, tracking)


@component
def report(system: str, cause: str, status: PipelineTaskFinalStatus) -> None:
    """How the run ended, whatever happened in it: a line in the log, and to the address that the cluster names."""
    from components.release.ended import tell

    tell(system, cause, status.state, status.pipeline_job_resource_name, status.error_message or "")


@component
def adopt(
    system: str,
    home: str,
    tracking: str,
    judged: str,
    features: Input[Dataset],
    bundle: Input[Model],
    gate: Input[Artifact],
    out: Output[Artifact],
) -> None:
    """The bundle learnt again from all rows, in the place of the one that was judged."""
    from components.release.refit import adopt as work
    from components.step import bundle_in, run_step, users_of

    inputs = {"bundle": bundle_in(bundle.path), "users": users_of(features.path), "gate": gate.path}
    config = {"system": system, "judged": judged, "home": home, "tracking": tracking}
    out.metadata.update(run_step("adopt", work, inputs, out.path, config, home=None))
