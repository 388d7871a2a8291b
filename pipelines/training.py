"""The learning loop, read top to bottom: one definition for a laptop, for containers and for a cluster.

shortlist pipeline run shop --runner subprocess|docker
shortlist pipeline compile shop training.yaml

Kubeflow skips a step whose image and inputs it has seen. Not those that look at the world outside: the source's data, the registry.
"""

from kfp import dsl

from components.data.component import ingest, served, validate
from components.evaluation.component import evaluate, gate, sanity
from components.export.component import export, pack
from components.features.component import features
from components.ranking.component import ranking
from components.release.component import adopt, champion, register
from components.retrieval.component import retrieval


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
) -> None:
    """`data`: folder of four tables, empty: the system's own. `until`: the cut, empty: a target's length before the last row.

    `home`: where step results are kept and found again, empty: nowhere (a cluster caches). `tracking`: MLflow's address, empty: under home.
    `events`: a server's log, `dir:PATH` or `kafka://…`, learnt from with the tables. `cause`: why this run was begun, for the registry.
    `accept`: take the tables whatever the last ones of their source were.
    """
    raw = ingest(system=system, data=data, home=home)
    raw.set_caching_options(False)
    both = served(system=system, home=home, events=events, tables=raw.output)
    both.set_caching_options(False)
    tables = validate(system=system, data=data, accept=accept, home=home, tables=both.output)
    known = features(system=system, until=until, fast=fast, home=home, tables=tables.output)
    sources = retrieval(system=system, fast=fast, seed=seed, home=home, features=known.output)
    rankers = ranking(system=system, fast=fast, seed=seed, home=home, features=known.output, retrieval=sources.output)
    graphs = export(system=system, home=home, features=known.output, retrieval=sources.output, ranking=rankers.output)
    bundle = pack(system=system, home=home, features=known.output, retrieval=sources.output, export=graphs.output)
    rival = champion(system=system, home=home, tracking=tracking).after(bundle)  # who it is when the candidate is there, not hours before
    rival.set_caching_options(False)
    judged = evaluate(system=system, home=home, bundle=bundle.output, features=known.output, champion=rival.output)
    verdict = gate(system=system, home=home, metrics=judged.output)
    version = register(
        system=system,
        home=home,
        tracking=tracking,
        cause=cause,
        tables=tables.output,
        features=known.output,
        retrieval=sources.output,
        ranking=rankers.output,
        bundle=bundle.output,
        metrics=judged.output,
        gate=verdict.output,
    )
    version.set_caching_options(False)


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
) -> None:
    """`judged`: digest of the bundle that passed the gate with these settings; what is learnt here takes its place in the registry.

    The other parameters are those of `training`; `cause` stands in the judged version already.
    """
    raw = ingest(system=system, data=data, home=home)
    raw.set_caching_options(False)
    both = served(system=system, home=home, events=events, tables=raw.output)
    both.set_caching_options(False)
    tables = validate(system=system, data=data, accept=accept, home=home, tables=both.output)
    known = features(system=system, until="end", fast=fast, home=home, tables=tables.output)
    sources = retrieval(system=system, fast=fast, seed=seed, home=home, features=known.output)
    rankers = ranking(system=system, fast=fast, seed=seed, home=home, features=known.output, retrieval=sources.output)
    graphs = export(system=system, home=home, features=known.output, retrieval=sources.output, ranking=rankers.output)
    bundle = pack(system=system, home=home, features=known.output, retrieval=sources.output, export=graphs.output)
    sane = sanity(system=system, home=home, judged=judged, bundle=bundle.output, features=known.output)
    version = adopt(
        system=system, home=home, tracking=tracking, judged=judged, features=known.output, bundle=bundle.output, gate=sane.output
    )
    version.set_caching_options(False)


STEPS = {
    step.name: step
    for step in (ingest, served, validate, features, retrieval, ranking, export, pack, champion, evaluate, gate, register, sanity, adopt)
}
