"""How a command ends when it cannot do what was asked: one paragraph for an error we foresaw, a log file for one we did not."""

import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import typer
from rich.console import Console

from components.code_digest import PACKAGES, ROOT

REFUSED = 1  # exit code: we know why, and say it
BROKEN = 70  # sysexits.h EX_SOFTWARE: a fault of ours
INTERRUPTED = 130  # 128 + SIGINT


@contextmanager
def one_paragraph() -> Iterator[None]:
    """Turn an exception into a message on stderr and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        _say("Interrupted. What was finished is kept: the same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as problem:  # the edge of the program: nothing is above it
        if type(problem).__module__.startswith("typer"):
            raise  # how Typer itself ends a command
        if foreseen(problem):
            _say(f"[bold red]Error:[/] {_escaped(problem)}")
            raise typer.Exit(REFUSED) from None
        _say(
            f"[bold red]This is a fault of ours:[/] {type(problem).__name__}. The whole story is in {_kept(problem)}; please send it to us."
        )
        raise typer.Exit(BROKEN) from None


def foreseen(problem: Exception) -> bool:
    """Whether the message was written for the person who reads it: one of our own exceptions, or a ValueError raised in our own code."""
    if type(problem).__module__.partition(".")[0] in PACKAGES:
        return isinstance(problem, ValueError)
    return type(problem) in (ValueError, FileNotFoundError, ModuleNotFoundError) and _raised_by_us(problem.__traceback__)


def _raised_by_us(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    file = Path(trace.tb_frame.f_code.co_filename)
    return file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in PACKAGES


def _kept(problem: Exception) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="shortlist-", suffix=".log", delete=False) as log:
        log.write("".join(traceback.format_exception(problem)))
    return log.name


def _escaped(problem: Exception) -> str:
    from rich.markup import escape

    return escape(" ".join(str(problem).split()))


def _say(message: str) -> None:
    Console(stderr=True).print(message, soft_wrap=True, highlight=False)
