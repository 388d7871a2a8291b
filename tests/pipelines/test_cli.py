"""The command line says what is wrong in one paragraph, and keeps the story of a fault of ours in a file."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from components.step import NoBundle
from pipelines.cli import Commands, app
from pipelines.errors import BROKEN, INTERRUPTED, REFUSED

runner = CliRunner()


def program(work: Callable[[], object]) -> typer.Typer:
    """A program whose one command does the work."""
    made = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
    made.callback()(lambda: None)
    made.command("work")(lambda: work() and None)
    return made


def failing(problem: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise problem

    return work


def test_an_error_of_ours_is_one_paragraph_and_exit_code_1() -> None:
    result = runner.invoke(program(failing(NoBundle("it holds [2] bundles,\n  expected one: run again"))), ["work"])
    assert result.exit_code == REFUSED
    assert result.stderr == "Error: it holds [2] bundles, expected one: run again\n"


def test_a_fault_of_ours_leaves_its_whole_story_in_a_file_and_a_line_that_says_where() -> None:
    result = runner.invoke(program(failing(KeyError("nobody foresaw this"))), ["work"])
    assert result.exit_code == BROKEN
    assert "Traceback" not in result.stderr
    log = Path(re.findall(r"is in (\S+\.log);", result.stderr)[0])
    assert "KeyError: 'nobody foresaw this'" in log.read_text()
    log.unlink()


def test_a_value_error_of_a_library_is_a_fault_not_a_message() -> None:
    result = runner.invoke(program(lambda: pa.array(["one"]).cast(pa.int64())), ["work"])
    assert result.exit_code == BROKEN
    Path(re.findall(r"is in (\S+\.log);", result.stderr)[0]).unlink()


def test_ctrl_c_says_that_nothing_is_lost() -> None:
    result = runner.invoke(program(failing(KeyboardInterrupt())), ["work"])
    assert result.exit_code == INTERRUPTED
    assert "goes on from there" in result.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train bakery", "no system 'bakery': known are shop"),
        ("train shop --data /nowhere", "--data /nowhere is no folder"),
        ("recommend shop 1 --home HOME", "no bundle of shop is released under HOME: run `shortlist train shop` first"),
        ("serve shop --home HOME", "no bundle of shop is released under HOME"),
        ("batch shop --out HOME/f.parquet --home HOME", "no bundle of shop is released under HOME"),
        ("replay shop --from 2017-11-27 --home HOME", "no tables of shop were accepted under HOME"),
        ("replay shop --from monday --home HOME", "--from 'monday' is no moment"),
        ("train shop --with-served --home HOME", "nothing was served of shop under HOME"),
        ("drift shop --home HOME", "no bundle of shop is released under HOME"),
        ("watch shop --once --home HOME", "no bundle of shop is released under HOME"),
        ("why abc --home HOME", "no answer 'abc' is in the exposure logs under HOME"),
        ("bundle show HOME", "HOME holds no bundle.json"),
        ("bundle verify HOME", "HOME holds no bundle.json"),
        ("bundle diff HOME HOME", "HOME holds no bundle.json"),
        ("pipeline compile bakery HOME/t.yaml", "no system 'bakery'"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(command: str, message: str, tmp_path: Path) -> None:
    result = runner.invoke(app, command.replace("HOME", str(tmp_path)).split())
    assert result.exit_code == REFUSED
    assert message.replace("HOME", str(tmp_path)) in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_an_unknown_runner_is_refused_before_anything_starts(tmp_path: Path) -> None:
    result = runner.invoke(app, ["pipeline", "run", "shop", "--runner", "magic", "--home", str(tmp_path)])
    assert result.exit_code == 2
    assert "no runner: choose subprocess or docker" in " ".join(result.stderr.replace("│", "").split())
    assert list(tmp_path.iterdir()) == []


def test_tables_without_the_columns_of_the_schema_end_in_one_paragraph(tmp_path: Path) -> None:
    for name in ("events", "items", "users", "context"):
        pq.write_table(pa.table({"wrong": [1]}), tmp_path / f"{name}.parquet")
    result = runner.invoke(app, ["train", "shop", "--data", str(tmp_path), "--home", str(tmp_path / "home")])
    assert result.exit_code == REFUSED
    *steps, error = result.stderr.splitlines()
    assert steps == ["step=ingest state=started", "step=ingest state=working"]
    assert error.startswith("Error: the table events lacks the column 'event_id'")


def test_the_systems_are_listed() -> None:
    result = runner.invoke(app, ["systems"])
    assert result.exit_code == 0
    assert "shop" in result.stdout
