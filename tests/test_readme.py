"""The README is true: its commands exist with their options, its tree is the tree."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from pipelines.cli import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.M | re.S)
COMMANDS = [line.partition("  #")[0].partition(" # ")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
TREE = next(block for kind, block in BLOCKS if "Makefile" in block and not kind)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("shortlist ")])
def test_a_command_of_the_readme_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    command, context = get_command(app), None
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"{line}: no command {name}"
        command = command.commands[name]
    context = command.make_context("readme", words)  # raises what the command line would say
    assert not context.args


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_a_make_target_of_the_readme_exists(line: str) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert line.split()[1] in targets


def test_every_command_is_in_the_readme() -> None:
    group = get_command(app)
    every = {f"shortlist {name}" for name, command in group.commands.items() if not hasattr(command, "commands")}
    every |= {f"shortlist {name} {inner}" for name, command in group.commands.items() for inner in getattr(command, "commands", ())}
    assert [name for name in sorted(every) if not any(f"{line} ".startswith(f"{name} ") for line in COMMANDS)] == []


def listed() -> set[str]:
    """The paths the tree names."""
    found, above = set(), ""
    for line in TREE.splitlines():
        name = line.split()[0]
        above = name if not line.startswith(" ") else above
        found.add(name if not line.startswith(" ") else above + name)
    return found


def test_what_the_tree_names_is_there() -> None:
    assert [name for name in sorted(listed()) if not (ROOT / name).exists()] == []


def test_every_folder_of_the_code_is_in_the_tree() -> None:
    folders = {
        f"{path.parent.relative_to(ROOT)}/" for part in ("serving", "components", "pipelines") for path in (ROOT / part).rglob("*.py")
    }
    assert sorted(folders - listed()) == []


def test_the_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
