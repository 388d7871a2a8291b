"""The in-process runner walks the compiled graph: every output has a place, a branch is taken on what a step gave back."""

from pathlib import Path

import pytest
from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Output

from components.step import component
from pipelines.in_process import run_in_process


@component
def judge(score: int, out: Output[Artifact], numbers: Output[Metrics]) -> bool:
    from pathlib import Path

    Path(out.path).write_text(str(score))
    numbers.log_metric("score", score)
    return score > 3


@component
def praise(found: Input[Artifact], out: Output[Artifact]) -> None:
    from pathlib import Path

    Path(out.path).write_text(f"{Path(found.path).read_text()} is enough")


@component
def blame(found: Input[Artifact], out: Output[Artifact]) -> None:
    from pathlib import Path

    Path(out.path).write_text(f"{Path(found.path).read_text()} is too little")


@dsl.pipeline
def judging(score: int) -> None:
    verdict = judge(score=score)
    with dsl.If(verdict.outputs["Output"] == True):  # noqa: E712
        praise(found=verdict.outputs["out"])
    with dsl.Else():
        blame(found=verdict.outputs["out"])


@pytest.mark.parametrize(("score", "taken", "told"), [(4, "praise", "4 is enough"), (3, "blame", "3 is too little")])
def test_one_branch_is_taken(tmp_path: Path, score: int, taken: str, told: str) -> None:
    run_in_process(judging, {"score": score}, tmp_path, {step.name: step for step in (judge, praise, blame)})
    assert [path.parent.name for path in tmp_path.rglob("out") if path.parent.name != "judge"] == [taken]
    assert (tmp_path / taken / "out").read_text() == told
