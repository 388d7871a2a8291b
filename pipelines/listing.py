"""The tables the command line prints of what it has."""

from pathlib import Path

from rich.table import Table

import serving.systems
from serving.system import load_system


def systems_table() -> Table:
    """A row a system: what it answers, from which sources."""
    table = Table("system", "answers", "pool", "sources")
    for file in sorted(Path(folder) for folder in serving.systems.__path__):
        for name in sorted(found.stem for found in file.glob("[a-z]*.py")):
            system = load_system(name)
            table.add_row(
                name, f"{system.answer_size} {system.noun}s", str(system.pool_size), ", ".join(source.kind for source in system.sources)
            )
    return table
