"""The steps `evaluate` and `gate`, as Kubeflow sees them."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components.step import component


@component
def evaluate(
    system: str,
    home: str,
    bundle: Input[Model],
    features: Input[Dataset],
    champion: Input[Artifact],
    out: Output[Dataset],
    numbers: Output[Metrics],
) -> None:
    """The bundle's lists for the week after the cut, beside popularity's and the champion's."""
    from components.evaluation.evaluate import evaluate as work
    from components.shown import judged_numbers, show_numbers
    from components.step import bundle_in, rival_in, run_step

    candidate = bundle_in(bundle.path)
    inputs = {"bundle": candidate, "features": features.path, "champion": rival_in(champion.path, other_than=candidate.name)}
    out.metadata.update(run_step("evaluate", work, inputs, out.path, {"system": system}, home))
    show_numbers(judged_numbers(out.path), numbers)


@component
def gate(system: str, home: str, metrics: Input[Dataset], out: Output[Artifact], page: Output[HTML]) -> bool:
    """Whether the bundle may be released, and the number that decided."""
    import json
    from pathlib import Path

    from components.evaluation.gate import decide as work
    from components.shown import show_verdict
    from components.step import run_step

    out.metadata.update(run_step("gate", work, {"metrics": metrics.path}, out.path, {"system": system}, home))
    show_verdict(out.path, page)
    return bool(json.loads(Path(out.path, "gate.json").read_text())["passed"])


@component
def sanity(system: str, home: str, judged: str, bundle: Input[Model], features: Input[Dataset], out: Output[Artifact]) -> None:
    """Whether a bundle learnt again from all rows still answers as its judged twin; the half of the gate that needs no truth."""
    from pathlib import Path

    from components.evaluation.sanity import sanity as work
    from components.step import bundle_in, run_step, users_of

    inputs = {"bundle": bundle_in(bundle.path), "twin": Path(home) / "bundles" / judged, "users": users_of(features.path)}
    out.metadata.update(run_step("sanity", work, inputs, out.path, {"system": system}, home))
