"""The learning loop, read top to bottom: one definition for a laptop, for containers and for a cluster.

shortlist pipeline run shop --runner subprocess|docker
shortlist pipeline compile shop training.yaml
shortlist pipeline submit shop --host URL

Kubeflow skips a step whose image and inputs it has seen. Not those that look at the world outside: the source's data, the registry.
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.data.component import ingest, served, validate
from components.evaluation.component import evaluate, gate, sanity
from components.export.component import export, pack
from components.features.component import features, materialize
from components.ranking.component import ranking
from components.release.component import adopt, champion, record, register, report, start
from components.retrieval.component import retrieval

Dress = Callable[[Any], Any]  # what a cluster wants of each task beyond its place in the order


def _learn(
    dress: Dress,
    system: Any,
    data: Any,
    until: Any,
    fast: Any,
    seed: Any,
    home: Any,
    tracking: Any,
    events: Any,
    cause: Any,
    accept: Any,
    mode: Any,
) -> None:
    """The steps in their order; the arguments are those of `training`."""
    begun = dress(start(system=system, mode=mode, home=home, tracking=tracking, judged=""))
    begun.set_caching_options(False)
    raw = dress(ingest(system=system, data=data, home=home))
    raw.set_caching_options(False)
    both = dress(served(system=system, home=home, events=events, tables=raw.output))
    both.set_caching_options(False)
    tables = dress(validate(system=system, data=data, accept=accept, home=home, tables=both.output))
    known = dress(features(system=system, until=until, fast=fast, mode=mode, home=home, tables=tables.outputs["out"]))
    every, last = known.outputs["out"], known.outputs["last"]
    sources = dress(retrieval(system=system, fast=fast, seed=seed, home=home, features=every, start=begun.output))
    rankers = dress(
        ranking(system=system, fast=fast, seed=seed, home=home, features=every, retrieval=sources.outputs["out"], start=begun.output)
    )
    graphs = dress(export(system=system, home=home, features=every, retrieval=sources.outputs["out"], ranking=rankers.output))
    bundle = dress(pack(system=system, home=home, features=last, retrieval=sources.outputs["last"], export=graphs.output))
    rival = dress(champion(system=system, home=home, tracking=tracking)).after(
        bundle
    )  # who it is when the candidate is there, not hours before
    rival.set_caching_options(False)
    judged = dress(evaluate(system=system, home=home, bundle=bundle.output, features=last, champion=rival.output))
    verdict = dress(gate(system=system, home=home, metrics=judged.outputs["out"]))
    made = {
        "system": system,
        "home": home,
        "tracking": tracking,
        "cause": cause,
        "tables": tables.outputs["out"],
        "features": last,
        "retrieval": sources.outputs["last"],
        "ranking": rankers.output,
        "export": graphs.output,
        "bundle": bundle.output,
        "metrics": judged.outputs["out"],
        "gate": verdict.outputs["out"],
    }
    with dsl.If(verdict.outputs["Output"] == True, name="passed"):  # noqa: E712 -- kfp's own comparison
        dress(register(**made)).set_caching_options(False)
    with dsl.Else(name="refused"):
        dress(record(**made)).set_caching_options(False)


def _plain(task: Any) -> Any:
    return task


@dsl.pipeline(name="shortlist-training", description="From raw tables to a judged and registered bundle.")  # type: ignore[untyped-decorator]
def training(
    system: str,
    data: str = "",
    until: str = "",
    fast: bool = False,
    seed: int = 0,
    home: str = "",
    tracking: str = "",
    events: str = "",
    cause: str = "",
    accept: bool = False,
    mode: str = "full",
) -> None:
    """`data`: folder of four tables, or its address s3://…; empty: the system's own. `until`: the cut, empty: a target's length
    before the last row.

    `home`: where step results are kept and found again, empty: nowhere (a cluster caches). `tracking`: MLflow's address, empty: under home.
    `events`: a server's log, `dir:PATH` or `kafka://…`, learnt from with the tables. `cause`: why this run was begun, for the registry.
    `accept`: take the tables whatever the last ones of their source were. `mode`: "full", or "daily": from the champion's weights, with the
    days of the last target.
    """
    _learn(_plain, system, data, until, fast, seed, home, tracking, events, cause, accept, mode)


def training_on_cluster(gpu: bool = False) -> Any:
    """The same loop as a cluster runs it: every step with what it needs, its secrets by reference, and a report however it ends."""
    from pipelines.needs import MLFLOW, dressed

    def dress(task: Any) -> Any:
        return dressed(task, gpu)

    @dsl.pipeline(name="shortlist-training", description="From raw tables to a judged and registered bundle.")  # type: ignore[untyped-decorator]
    def training_with_report(
        system: str,
        data: str = "",
        until: str = "",
        fast: bool = False,
        seed: int = 0,
        tracking: str = MLFLOW,
        events: str = "",
        cause: str = "",
        accept: bool = False,
        mode: str = "full",
    ) -> None:
        told = dress(report(system=system, cause=cause)).set_caching_options(False)
        with dsl.ExitHandler(told, name="training"):
            _learn(dress, system, data, until, fast, seed, "", tracking, events, cause, accept, mode)

    return training_with_report


@dsl.pipeline(name="shortlist-refit", description="The judged loop once more, from all rows.")  # type: ignore[untyped-decorator]
def refit(
    system: str,
    judged: str,
    data: str = "",
    fast: bool = False,
    seed: int = 0,
    home: str = "",
    tracking: str = "",
    events: str = "",
    cause: str = "",
    accept: bool = False,
    mode: str = "full",
) -> None:
    """`judged`: digest of the bundle that passed the gate with these settings; what is learnt here takes its place in the registry.

    The other parameters are those of `training`; `cause` stands in the judged version already. Mode "daily" goes on from the judged one.
    """
    begun = start(system=system, mode=mode, home=home, tracking=tracking, judged=judged)
    begun.set_caching_options(False)
    raw = ingest(system=system, data=data, home=home)
    raw.set_caching_options(False)
    both = served(system=system, home=home, events=events, tables=raw.output)
    both.set_caching_options(False)
    tables = validate(system=system, data=data, accept=accept, home=home, tables=both.output)
    known = features(system=system, until="end", fast=fast, mode=mode, home=home, tables=tables.outputs["out"])
    every, last = known.outputs["out"], known.outputs["last"]
    sources = retrieval(system=system, fast=fast, seed=seed, home=home, features=every, start=begun.output)
    rankers = ranking(system=system, fast=fast, seed=seed, home=home, features=every, retrieval=sources.outputs["out"], start=begun.output)
    graphs = export(system=system, home=home, features=every, retrieval=sources.outputs["out"], ranking=rankers.output)
    bundle = pack(system=system, home=home, features=last, retrieval=sources.outputs["last"], export=graphs.output)
    sane = sanity(system=system, home=home, judged=judged, bundle=bundle.output, features=last)
    version = adopt(system=system, home=home, tracking=tracking, judged=judged, features=last, bundle=bundle.output, gate=sane.output)
    version.set_caching_options(False)


_STEPS = (
    *(start, ingest, served, validate, features, retrieval, ranking, export, pack, champion, evaluate, gate),
    *(register, record, sanity, adopt),
    materialize,
)


@dsl.pipeline(name="shortlist-materialize", description="What is known of users now, for the next answer.")  # type: ignore[untyped-decorator]
def freshen(
    system: str, online: str, data: str = "", until: str = "", home: str = "", events: str = "", accept: bool = False
) -> None:  # fmt: skip
    """`online`: Feast's online store, `sqlite:PATH` or `redis://…`. `until`: the moment, empty: the end of the rows."""
    raw = ingest(system=system, data=data, home=home)
    raw.set_caching_options(False)
    both = served(system=system, home=home, events=events, tables=raw.output)
    both.set_caching_options(False)
    tables = validate(system=system, data=data, accept=accept, home=home, tables=both.output)
    done = materialize(system=system, until=until, online=online, home=home, tables=tables.outputs["out"])
    done.set_caching_options(False)


STEPS = {step.name: step for step in _STEPS}
