"""Small faults put into the modules that decide, one at a time: are they noticed by the module's own tests? `make mutants`.

    python -m tests.mutants                          every module, 30 faults each
    python -m tests.mutants serving/retrieval        those below a folder
    python -m tests.mutants --each 3 --seconds 80    a bounded sample, as `make test` takes it

Ends with 1 when fewer than 85 of 100 are noticed, or one of `planted.py` is not.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import monotonic

from tests.mutants.judge import Judged, judge
from tests.mutants.making import mutants_of
from tests.mutants.modules import MODULES, Module
from tests.mutants.planted import planted_in

LEAST_NOTICED = 0.85


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge a seeded sample of each module's faults and print the shares noticed and whatever was not. 1: too few were."""
    parser = ArgumentParser("python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", default=[""], help="modules, or the folders they lie in")
    parser.add_argument("--each", type=int, default=30, help="faults a module, beside those planted by hand")
    parser.add_argument("--seed", type=int, default=1, help="which faults")
    parser.add_argument("--jobs", type=int, default=1, help="modules at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no fault after that")
    options = parser.parse_args(arguments)
    wanted = [module for module in MODULES if module.path.startswith(tuple(options.paths))]
    ends = monotonic() + options.seconds
    work = partial(_judged, each=options.each, seed=options.seed, ends=ends)
    with ProcessPoolExecutor(options.jobs, get_context("fork")) as pool:  # of one thread each, so that they may fork
        return _report(list(pool.map(work, wanted)))


def _judged(module: Module, each: int, seed: int, ends: float) -> Judged:
    source = Path(module.path).read_text()
    mutants = [*planted_in(module.path, source), *mutants_of(module.path, source, each, seed, module.functions)]
    judged = judge(module, mutants, ends)
    print(judged.line(), flush=True)
    return judged


def _report(found: Sequence[Judged]) -> int:
    made, noticed = sum(one.made for one in found), sum(one.noticed for one in found)
    left = [mutant for one in found for mutant in one.survivors]
    for mutant in left:
        print(f"\n{mutant.path}:{mutant.line} not noticed{' (planted)' if mutant.planted else ''}\n-   {mutant.was}\n+   {mutant.became}")
    share = noticed / made if made else 1.0
    print(f"\n{noticed} of {made} noticed, {share:.1%}; expected at least {LEAST_NOTICED:.0%} and all those planted")
    return int(share < LEAST_NOTICED or any(mutant.planted for mutant in left))


if __name__ == "__main__":
    raise SystemExit(main())
