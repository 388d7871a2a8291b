"""`shortlist bundle …`: look at a bundle, prove it whole, compare two."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at bundles.")
Folder = Annotated[Path, typer.Argument(help="a bundle's folder", show_default=False)]


@app.command()
def show(folder: Folder) -> None:
    """Print what the bundle is: system, span, versions, metrics, size."""
    import json

    from rich.console import Console
    from rich.table import Table

    from serving.bundle.bundle import show as work

    manifest = work(folder)
    table = Table(show_header=False, box=None)
    for name, value in manifest.items():
        if name == "files":
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            table.add_row(name, f"{len(value)} files, {size / 1e6:.1f} MB")
        elif name != "settings":
            table.add_row(name, value if isinstance(value, str) else json.dumps(value))
    Console().print(table)


@app.command()
def verify(folder: Folder) -> None:
    """Hash every file; exit 0 and print the digest when all are as the bundle says."""
    from serving.bundle.bundle import verify as work

    typer.echo(work(folder))


@app.command()
def diff(first: Folder, second: Folder) -> None:
    """Say what differs, a line each; exit 1 when anything does."""
    from serving.bundle.bundle import diff as work

    lines = work(first, second)
    for line in lines:
        typer.echo(line)
    raise typer.Exit(1 if lines else 0)
