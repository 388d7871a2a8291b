"""The steps `features` and `materialize`, as Kubeflow sees them."""

from kfp.dsl import Dataset, Input, Output

from components.step import component


@component
def features(
    system: str, until: str, fast: bool, mode: str, home: str, tables: Input[Dataset], out: Output[Dataset], last: Output[Dataset]
) -> None:
    """What was known of every item and user at each cut before `until`; `last`: of the last cut alone, and what it is judged by."""
    from pathlib import Path

    from components.features.build import build as work
    from components.features.moments import cuts_of, moment
    from components.features.own_views import version
    from components.features.store import definitions
    from components.features.usable import refuse_too_little, refuse_without_positives
    from components.moved import last_cut
    from components.step import run_step, told
    from serving.system import load_system

    with told(out.path):
        refuse_without_positives(load_system(system), Path(tables.path))
        cut = moment(system, tables.path, until)
        refuse_too_little(load_system(system), Path(tables.path), cut, must_judge=until != "end")
        read = version(definitions(load_system(system)).own)
    config = {"system": system, "until": cut, "cuts": cuts_of(system, fast, mode)}
    out.metadata.update(run_step("features", work, {"tables": tables.path}, out.path, config, home, read))
    last_cut(out.path, last.path)


@component
def materialize(system: str, until: str, online: str, home: str, tables: Input[Dataset], out: Output[Dataset]) -> None:
    """What is known of users at `until` (empty: at the end of the rows), into Feast's online store."""
    from components.features.moments import moment
    from components.features.online import materialize as work
    from components.step import run_step, told

    with told(out.path):
        at = moment(system, tables.path, until or "end")
    config = {"system": system, "until": at, "online": online}
    out.metadata.update(run_step("materialize", work, {"tables": tables.path}, out.path, config, home=None))
