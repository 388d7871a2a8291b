"""Which of a module's faults its own tests notice, and which of them `equivalent.toml` explains."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.forks import verdicts
from tests.mutants.making import Mutant
from tests.mutants.modules import Module

_EQUIVALENT = Path(__file__).parent / "equivalent.toml"


@dataclass
class Judged:
    """What came of a module's faults."""

    module: Module
    made: int = 0  # those that change what the module does
    noticed: int = 0
    equivalent: int = 0
    survivors: list[Mutant] = field(default_factory=list)

    def line(self) -> str:
        share = f"{self.noticed / self.made:6.1%}" if self.made else "     –"
        return f"{self.module.path:48} {self.noticed:3} of {self.made:3} {share}  {self.equivalent:2} change nothing"


def judge(module: Module, mutants: Sequence[Mutant], ends: float) -> Judged:
    """Try each mutant that `equivalent.toml` does not explain, until `ends`. Raises `RuntimeError` where the tests fail without any."""
    explained = {(one["file"], one["was"], one["became"]) for one in tomllib.loads(_EQUIVALENT.read_text()).get("mutant", [])}
    real = [mutant for mutant in mutants if (mutant.path, mutant.was, mutant.became) not in explained]
    judged = Judged(module, equivalent=len(mutants) - len(real))
    for mutant, noticed in zip(real, verdicts(module, [one.source for one in real], ends), strict=False):  # the rest was not begun
        judged.made += 1
        judged.noticed += noticed
        if not noticed:
            judged.survivors.append(mutant)
    return judged
