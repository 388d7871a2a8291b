"""The steps `ingest`, `served` and `validate`, as Kubeflow sees them."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Output

from components.step import component


@component
def ingest(system: str, data: str, home: str, out: Output[Dataset]) -> None:
    """The four tables, from the system's own data or from `data`, a folder or an address s3://….

    Kubeflow never skips it: only it can see what has changed.
    """
    from components.data.ingest import ingest as work
    from components.data.version import source_version
    from components.step import run_step, told
    from serving.remote import local

    with told(out.path):
        given = local(data)
    version = source_version(system, given)
    out.metadata.update(run_step("ingest", work, {"data": given or None}, out.path, {"system": system}, home, version))


@component
def served(system: str, home: str, events: str, tables: Input[Dataset], out: Output[Dataset]) -> None:
    """The tables with what a server's log at `events` holds beyond them; empty: as they are. Never skipped where there is a log."""
    from pathlib import Path

    from components.data.served import append as work
    from components.data.served import collect
    from components.step import run_step

    copy = collect(events, Path(f"{out.path}.served")) if events else None
    out.metadata.update(run_step("served", work, {"tables": tables.path, "served": copy}, out.path, {"system": system}, home))


@component
def validate(
    system: str,
    data: str,
    accept: bool,
    home: str,
    tables: Input[Dataset],
    out: Output[Dataset],
    page: Output[HTML],
    counts: Output[Metrics],
) -> None:
    """The rows that may be learnt from; the others set aside with their reason. `accept`: whatever came of this source before."""
    from components.data.accepted import baseline
    from components.data.ahead import now_if_ahead
    from components.data.validate import validate as work
    from components.shown import show_numbers, show_page
    from components.step import run_step

    before = None if accept else baseline(system, home, data, tables.path)
    inputs = {"tables": tables.path, "last_accepted": before.folder if before else None}
    config = {"system": system, "compared_with": before.described if before else "", "now": now_if_ahead(tables.path)}
    record = run_step("validate", work, inputs, out.path, config, home)
    out.metadata.update(record)
    show_page(f"{out.path}/docs/index.html", page)
    show_numbers(record["rows"], counts)
