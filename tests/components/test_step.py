"""A step is done once per content, never half, by one process at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.code_digest import SourceNotFound, code_digest, module_file, reached
from components.step import NoBundle, bundle_in, code_version, digest_of, run_step
from serving.system import System

ROOT = Path(__file__).parent.parent.parent


def double(system: System, numbers: Path, out: Path, times: int = 2) -> None:
    """Write every number times `times`, set negative ones aside, and leave a line in `numbers/../calls` for each call."""
    table = pq.read_table(numbers / "numbers.parquet").column("n").to_pylist()
    with (numbers.parent / "calls").open("a") as calls:
        calls.write(f"{system.name} {times}\n")
    pq.write_table(pa.table({"n": [n * times for n in table if n >= 0]}), out / "numbers.parquet")
    (out / "quarantine").mkdir()
    pq.write_table(pa.table({"n": [n for n in table if n < 0]}), out / "quarantine" / "numbers.parquet")


def refuse(system: System, out: Path) -> None:
    (out / "report.json").write_text("{}")
    raise NoBundle("three rows are wrong: correct them")


def write_numbers(folder: Path, numbers: list[int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"n": numbers}), folder / "numbers.parquet")
    return folder


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().split("\n")[:-1]


def test_rows_read_written_and_set_aside_are_counted_and_the_record_kept(tmp_path: Path) -> None:
    numbers = write_numbers(tmp_path / "in", [1, 2, -3])
    record = run_step("double", double, {"numbers": numbers}, tmp_path / "run" / "out", {"system": "shop"}, tmp_path / "home")
    assert record["rows"] == {"in": 3, "out": 2, "set_aside": 1}
    assert pq.read_table(tmp_path / "run" / "out" / "numbers.parquet").column("n").to_pylist() == [2, 4]
    assert json.loads((tmp_path / "run" / "out.record.json").read_text()) == record


def test_the_same_content_is_not_worked_on_twice_wherever_it_lies(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_numbers(tmp_path / place, [1, 2])
        record = run_step("double", double, {"numbers": tmp_path / place}, tmp_path / f"{place}.out", {"system": "shop"}, tmp_path / "home")
    assert calls(tmp_path) == ["shop 2"]
    assert record["resumed"]
    assert digest_of(tmp_path / "a.out") == digest_of(tmp_path / "b.out")


@pytest.mark.parametrize("change", ["input", "setting", "system"])
def test_another_input_setting_or_system_is_worked_on_anew(tmp_path: Path, change: str) -> None:
    numbers = write_numbers(tmp_path / "in", [1, 2])
    run_step("double", double, {"numbers": numbers}, tmp_path / "first", {"system": "shop"}, tmp_path / "home")
    write_numbers(tmp_path / "in", [1, 5 if change == "input" else 2])
    config = {"system": str(ROOT / "tests/world/system.py") if change == "system" else "shop"} | (
        {"times": 3} if change == "setting" else {}
    )
    record = run_step("double", double, {"numbers": numbers}, tmp_path / "second", config, tmp_path / "home")
    assert not record["resumed"]
    assert len(calls(tmp_path)) == 2


def test_without_a_home_the_work_is_done_where_it_is_asked_for(tmp_path: Path) -> None:
    numbers = write_numbers(tmp_path / "in", [1, 2])
    for _ in range(2):
        record = run_step("double", double, {"numbers": numbers}, tmp_path / f"out{_}", {"system": "shop"}, None)
    assert len(calls(tmp_path)) == 2
    assert record["rows"] == {"in": 2, "out": 2, "set_aside": 0}


def test_a_refusal_leaves_its_message_and_its_report_but_no_result(tmp_path: Path) -> None:
    with pytest.raises(NoBundle, match="three rows are wrong"):
        run_step("refuse", refuse, {}, tmp_path / "out", {"system": "shop"}, tmp_path / "home")
    assert (tmp_path / "out.error.txt").read_text() == "components.step.NoBundle\nthree rows are wrong: correct them"
    assert (tmp_path / "out.refused" / "report.json").read_text() == "{}"
    assert not (tmp_path / "out").exists()
    assert [path.suffix for path in (tmp_path / "home/steps/refuse").iterdir() if path.is_dir()] == []


SLOW_STEP = """
import os, sys, time
from pathlib import Path
from components.step import run_step

def slow(system, out, times=1):
    (out / "first").write_text("1")
    with open(sys.argv[1] + "/calls", "a") as calls:
        calls.write(f"{os.getpid()}\\n")
    print("half", flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.read()  # until killed, or until the test closes our input
    (out / "second").write_text("2")

run_step("slow", slow, {}, Path(sys.argv[1]) / f"out{os.getpid()}", {"system": "shop"}, Path(sys.argv[1]) / "home")
"""


def start(tmp_path: Path, how: str) -> subprocess.Popen[str]:
    script = tmp_path / "slow.py"
    script.write_text(SLOW_STEP)
    command = [sys.executable, str(script), str(tmp_path), how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def until_half(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(line == "half\n" for line in process.stdout)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_step_killed_halfway_leaves_nothing_that_counts_and_is_done_again(tmp_path: Path, how: signal.Signals) -> None:
    with start(tmp_path, "wait") as process:
        until_half(process)
        process.send_signal(how)
        process.communicate()
    assert process.returncode != 0
    with start(tmp_path, "go on") as again:
        again.communicate()
    assert again.returncode == 0
    assert sorted(path.name for path in (tmp_path / f"out{again.pid}").iterdir()) == ["first", "second"]
    assert not (tmp_path / f"out{process.pid}").exists()


def test_two_at_once_wait_for_each_other_and_work_once(tmp_path: Path) -> None:
    with start(tmp_path, "wait") as first:
        until_half(first)
        with start(tmp_path, "go on") as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "step=slow state=started\n"  # it now waits for the lock
            first.communicate("")  # closes its input: it goes on
            second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert calls(tmp_path) == [str(first.pid)]
    assert digest_of(tmp_path / f"out{first.pid}") == digest_of(tmp_path / f"out{second.pid}")


def test_the_code_version_covers_what_is_imported_and_nothing_else() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in reached(ROOT / "components" / "step.py")}
    assert files == {
        "components/step.py",
        "components/code_digest.py",
        "serving/system.py",
        "serving/event_meanings.py",
        "serving/networks.py",
        "serving/objectives.py",
        "serving/remote.py",
        "feature_repo/names.py",
        "feature_repo/schema.py",
    }


def own_system(folder: Path, feature_repo: Path) -> str:
    """A system file of its own with a Feast repo of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "tests" / "world" / "system.py").read_text()
    (folder / "own.py").write_text(text.replace('"tests/world/feature_repo"', f'"{feature_repo}"'))
    return str(folder / "own.py")


@pytest.mark.parametrize("changed", ["own.py", "repo/features.py", "repo/feature_store.yaml", "prices.py"])
def test_the_code_version_changes_with_the_system_file_its_feature_repo_and_what_they_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    system = own_system(tmp_path, tmp_path / "repo")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "features.py").write_text("from prices import PRICE\n")
    (tmp_path / "repo" / "feature_store.yaml").write_text("project: own\n")
    (tmp_path / "prices.py").write_text("PRICE = 1\n")
    before = code_version(double, system)
    assert code_version(double, system) == before
    with (tmp_path / changed).open("a") as file:
        file.write("# a word\n")
    assert code_version(double, system) != before


def test_a_feature_repo_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"names the feature repo .*/gone, which is no folder: correct feature_repo in its file"):
        code_version(double, own_system(tmp_path, tmp_path / "gone"))


@pytest.mark.parametrize("what", ["python_version", "_version"])
def test_the_code_version_changes_with_python_and_with_every_package_learning_resolves_to(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    from components import code_digest as module

    before = code_digest(double)
    if what == "_version":
        known = module._version
        monkeypatch.setattr(module, "_version", lambda name: "0" if name == "threadpoolctl" else known(name))
    else:
        monkeypatch.setattr("platform.python_version", lambda: "3.11.99")
    assert code_digest(double) != before


def test_the_loops_sources_belong_to_what_runs_them() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in reached(ROOT / "components" / "evaluation" / "batch.py")}
    assert {"serving/native/kernel.py", "serving/native/rank.c", "serving/native/_kernel.pyx", "serving/native/kernel.h"} <= files


def test_a_users_package_is_followed_wherever_it_lies_and_installed_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "elsewhere" / "warehouse"
    (package / "tables").mkdir(parents=True)
    for file, text in {
        "__init__.py": "",
        "read.py": "import numpy\nfrom . import dates\nfrom .tables.receipts import rows\nimport warehouse.stock\n",
        "dates.py": "",
        "stock.py": "import beside\n",
        "unused.py": "",
        "tables/__init__.py": "",
        "tables/receipts.py": "from ..dates import x\n",
    }.items():
        (package / file).write_text(text)
    (tmp_path / "elsewhere" / "beside.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    found = {path.relative_to(tmp_path / "elsewhere").as_posix() for path in reached(module_file("warehouse.read", "a test asks"))}
    assert found == {
        "beside.py",
        *(f"warehouse/{name}.py" for name in ("__init__", "read", "dates", "stock", "tables/__init__", "tables/receipts")),
    }
    with pytest.raises(SourceNotFound, match=r"a test asks, but there is no module 'warehouse\.gone'"):
        module_file("warehouse.gone", "a test asks")


def test_what_nobody_can_name_the_version_of_is_read_again_and_the_same_content_is_filed_once(tmp_path: Path) -> None:
    numbers, config, home = write_numbers(tmp_path / "in", [1, 2]), {"system": "shop"}, tmp_path / "home"
    records = [run_step("double", double, {"numbers": numbers}, tmp_path / f"out{n}", config, home, version=None) for n in range(2)]
    assert len(calls(tmp_path)) == 2
    assert [record["resumed"] for record in records] == [False, False]
    assert records[0]["key"] == records[1]["key"]
    assert [path.name for path in (home / "steps" / "double").iterdir() if path.is_dir()] == [records[0]["key"]]
    assert digest_of(tmp_path / "out0") == digest_of(tmp_path / "out1")


def test_another_version_of_what_is_read_is_read_again(tmp_path: Path) -> None:
    numbers, config, home = write_numbers(tmp_path / "in", [1, 2]), {"system": "shop"}, tmp_path / "home"
    for at, version in enumerate(("monday", "monday", "tuesday")):
        run_step("double", double, {"numbers": numbers}, tmp_path / f"out{at}", config, home, version=version)
    assert len(calls(tmp_path)) == 2


def test_a_file_written_over_with_its_times_kept_is_another(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    before, times = digest_of(file), file.stat()
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest_of(file) != before


def test_a_bundle_is_found_only_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "abc").mkdir()
    assert bundle_in(tmp_path).name == "abc"
    (tmp_path / "def").mkdir()
    with pytest.raises(NoBundle, match="holds 2 bundles"):
        bundle_in(tmp_path)


def test_a_thousand_small_files_are_hashed_by_content_not_by_time(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        for number in range(1000):
            (tmp_path / copy / str(number % 10)).mkdir(parents=True, exist_ok=True)
            (tmp_path / copy / str(number % 10) / f"{number}").write_text(str(number))
    os.utime(tmp_path / "b" / "3" / "3", (time.time() + 5, time.time() + 5))
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    (tmp_path / "b" / "3" / "3").write_text("4")
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b")
