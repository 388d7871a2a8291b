"""`shortlist bundle …`: look at a bundle, prove it whole, compare two."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at bundles.")
Folder = Annotated[Path, typer.Argument(help="a bundle's folder", show_default=False)]

Key = Annotated[Path, typer.Option(help="private key (PEM, Ed25519)")]
SignedBy = Annotated[Path | None, typer.Option(help="public key, or a folder of them (*.pub)", show_default=False)]
KEY = Path(".shortlist/keys/bundles")  # in the home


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
def verify(folder: Folder, signed_by: SignedBy = None) -> None:
    """Hash every file; exit 0 and print the digest when all are as the bundle says and, where a key is given, it signed them."""
    from serving.bundle.bundle import verify as work
    from serving.bundle.signature import check_signature

    digest = work(folder)
    if signed_by is not None:
        check_signature(folder, digest, signed_by)
    typer.echo(digest)


@app.command()
def key(file: Annotated[Path, typer.Argument(help="where it is written")] = KEY) -> None:
    """Make a key to sign bundles with; its public half lies beside it as FILE.pub."""
    from serving.bundle.signature import make_key

    typer.echo(make_key(file))


@app.command()
def sign(folder: Folder, key: Key = KEY) -> None:
    """Say that this bundle comes from the holder of the key; prints the digest that was signed, which stays the same."""
    from serving.bundle.signature import sign as work

    typer.echo(work(folder, key))


@app.command()
def diff(first: Folder, second: Folder) -> None:
    """Say what differs, a line each; exit 1 when anything does."""
    from serving.bundle.bundle import diff as work

    lines = work(first, second)
    for line in lines:
        typer.echo(line)
    raise typer.Exit(1 if lines else 0)


@app.command()
def push(
    folder: Folder,
    users: Annotated[Path, typer.Option(help="the states of its users, HOME/users/DIGEST", show_default=False)],
    to: Annotated[str, typer.Option(help="s3://BUCKET/SYSTEM; users go to s3://BUCKET/SYSTEM-users", show_default=False)],
) -> None:
    """Prove the bundle and put it where predictors read it, under its digest; again changes nothing. Prints the digest."""
    from serving.bundle.bundle import verify as proven
    from serving.remote import send

    digest = proven(folder).removeprefix("sha256:")
    send(users, f"{to}-users/{digest}")
    send(folder, f"{to}/{digest}", last="bundle.json")  # after its users: a bundle that is there can answer
    typer.echo(digest)
