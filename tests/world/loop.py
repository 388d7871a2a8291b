"""The loop on the tiny world, step by step as the pipeline calls it, but in this process and with nothing between."""

from pathlib import Path

from serving.system import System
from tests.world.generate import World


def known(system: System, world: World, home: Path) -> None:
    """From tables to features: `home/{ingest,validate,features}`."""
    from components.data.ingest import ingest
    from components.data.validate import validate
    from components.features.build import build

    ingest(system, out=home / "ingest", data=world.folder)
    validate(system, tables=home / "ingest", out=home / "validate")
    build(system, tables=home / "validate", out=home / "features", until=world.until.isoformat(), cuts=system.learning.cuts)


def learn(system: System, home: Path, into: Path | None = None, seed: int = 0) -> Path:
    """From features to a bundle: `into/{retrieval,ranking,export,pack}`; the bundle's folder."""
    from components.export.export import export
    from components.export.pack import pack
    from components.ranking.fit import fit as fit_rankers
    from components.retrieval.fit import fit as fit_sources

    into, features = into or home, home / "features"
    fit_sources(system, features=features, out=into / "retrieval", fast=True, seed=seed)
    fit_rankers(system, features=features, retrieval=into / "retrieval", out=into / "ranking", fast=True, seed=seed)
    export(system, features=features, retrieval=into / "retrieval", ranking=into / "ranking", out=into / "export")
    return pack(system, features=features, retrieval=into / "retrieval", export=into / "export", out=into / "pack")
