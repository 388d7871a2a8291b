"""What the steps before `register` leave, small: two bundles that can answer, or folders that only look like one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.release.register import register
from serving.system import System
from tests.serving.tiny_bundle import states, system, write_tiny

TINY = system()


@dataclass(frozen=True)
class Made:
    """Folders of a bundle, its users, metrics and verdict."""

    bundle: Path
    users: Path
    metrics: Path
    gate: Path

    @property
    def digest(self) -> str:
        return self.bundle.name

    def register(self, out: Path, home: Path | str = "", tracking: str = "", system: System = TINY) -> dict[str, Any]:
        return register(system, self.bundle, self.users, self.metrics, self.gate, out, home=str(home), tracking=tracking)


def judged(folder: Path, digest: str, ndcg: float, passed: bool = True, champion: str | None = None) -> tuple[Path, Path]:
    """Metrics and gate folders."""
    metrics, gate = folder / "metrics", folder / "gate"
    numbers = {who: {"ndcg@10": {"value": value, "error": 0.01}} for who, value in (("candidate", ndcg), ("popularity", 0.1))}
    against = {"popularity": {"ndcg@10": {"value": round(ndcg - 0.1, 6), "error": 0.012}}}
    told = {"protocols": {"all": {"recommenders": numbers, "against": against}}, "bundle": f"sha256:{digest}", "cut": "2017-11-27"}
    metrics.mkdir(parents=True)
    (metrics / "metrics.json").write_text(json.dumps({**told, "champion": champion, "judged_days": 7, "bundle_bytes": 1_500_000}))
    (metrics / "latency.json").write_text(json.dumps({"cpu_ms_p50": 1.5}))
    gate.mkdir()
    checks = [{"name": "ndcg@10 against popularity", "passed": passed, "sentence": f"NDCG@10 {ndcg} against 0.1."}]
    sentence = f"{'Passed' if passed else 'Refused'}: NDCG@10 {ndcg}."
    (gate / "gate.json").write_text(json.dumps({"passed": passed, "sentence": sentence, "checks": checks}))
    return metrics, gate


def tiny_made(folder: Path) -> tuple[Made, Made]:
    """Two bundles of the tiny system, the second a little better."""
    states().save(folder / "users")
    bundles = (write_tiny(folder / "first"), write_tiny(folder / "second", user_lists=False))
    first, second = (
        Made(bundle, folder / "users", *judged(folder / f"judged{at}", bundle.name, 0.2 + at / 10)) for at, bundle in enumerate(bundles)
    )
    return first, second


def looks_like(folder: Path, digest: str, ndcg: float, passed: bool = True) -> Made:
    """A folder named like a bundle that nobody could answer from."""
    bundle, users = folder / digest, folder / "users"
    for made in (bundle, users):
        made.mkdir(parents=True)
    (bundle / "bundle.json").write_text(
        json.dumps({"settings": {"answer": 10}, "span": {"cut": "2017-11-27", "users": 5, "items": 7}, "code_version": "c0de"})
    )
    (users / "meta.json").write_text("{}")
    return Made(bundle, users, *judged(folder, digest, ndcg, passed))
