"""What made a bundle and how it was judged, gathered from what its steps wrote: what a person wants to know before promoting it."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.code_digest import ROOT
from components.step import digest_of

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Making:
    """The steps' own records; empty where a step's folder was not given."""

    manifest: Json
    metrics: Json
    latency: Json
    verdict: Json
    data: Json = field(default_factory=dict)  # report.json of the data gate
    features: Json = field(default_factory=dict)
    retrieval: Json = field(default_factory=dict)
    ranking: Json = field(default_factory=dict)
    forms: Json = field(default_factory=dict)  # parity.json of the export
    timing: Json = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)  # of the accepted tables and of the features

    @classmethod
    def of(
        cls,
        bundle: Path,
        metrics: Path,
        gate: Path,
        tables: Path | None = None,
        features: Path | None = None,
        retrieval: Path | None = None,
        ranking: Path | None = None,
        export: Path | None = None,
    ) -> "Making":
        """From the folders of the steps."""
        return cls(
            read(bundle, "bundle.json"),
            read(metrics, "metrics.json"),
            read(metrics, "latency.json"),
            read(gate, "gate.json"),
            read(tables, "report.json"),
            read(features, "features.json"),
            read(retrieval, "retrieval.json"),
            read(ranking, "ranking.json"),
            read(export, "parity.json"),
            read(export, "timing.json"),
            {name: digest_of(folder) for name, folder in (("data", tables), ("features", features)) if folder},
        )

    @classmethod
    def again(cls, bundle: Path, judged: Mapping[str, str]) -> "Making":
        """Of a bundle learnt again from all rows: judged as its twin, whose version has these tags."""
        verdict = {"passed": True, "sentence": judged.get("gate.sentence", ""), "checks": []}
        return cls(read(bundle, "bundle.json"), {}, {}, verdict)

    @property
    def passed(self) -> bool:
        return bool(self.verdict["passed"])

    @property
    def digest(self) -> str:
        """The bundle's digest as the metrics name it, else as the manifest does."""
        return str(self.metrics.get("bundle") or self.manifest.get("digest", "")).removeprefix("sha256:")

    @property
    def against(self) -> str:
        """What it was compared with, in words."""
        champion = self.metrics.get("champion")
        if champion:
            return f"popularity and the champion of the time, bundle {str(champion).removeprefix('sha256:')[:12]}"
        unreadable = self.metrics.get("champion_unreadable")
        return (
            "popularity; the champion of the time could not be asked: " + str(unreadable)
            if unreadable
            else "popularity; there was no champion"
        )

    def settings(self) -> dict[str, str]:
        """What made it, a line each: parameters of the run."""
        told: dict[str, Any] = {
            "seed": self.ranking.get("seed", self.retrieval.get("seed")),
            "fast": self.retrieval.get("fast"),
            "mode": self.retrieval.get("mode"),
            "until": self.features.get("until"),
            "cuts": ", ".join(map(str, self.ranking.get("cuts", []))) or None,
            "commit": commit(),
            "code_version": version("shortlist"),
            "data": self.digests.get("data"),
            "features": self.digests.get("features"),
        }
        told |= {f"system.{name}": json.dumps(value, sort_keys=True) for name, value in sorted(self.manifest.get("settings", {}).items())}
        return {name: str(value) for name, value in told.items() if value is not None}

    def tags(self) -> dict[str, str]:
        """What a version says of itself in the registry's lists."""
        judged, deciding = self.metrics.get("protocols", {}).get("all", {}), self.metrics.get("measures", ["ndcg@10"])[0]
        told = {
            "gate": "passed" if self.passed else "refused",
            "gate.sentence": str(self.verdict.get("sentence", "")),
            "cut": str(self.metrics.get("cut", self.manifest.get("span", {}).get("cut", ""))),
            "against": self.against if self.metrics else "",
            deciding: _number(judged.get("recommenders", {}).get("candidate", {}).get(deciding)),
        }
        for rival, found in judged.get("against", {}).items():
            told[f"{deciding} ahead of {rival}"] = _number(found.get(deciding), "+")
        return {name.replace("@", " at "): value for name, value in told.items() if value}


def read(folder: Path | None, name: str) -> dict[str, Any]:
    """A step's record; empty when there is none."""
    file = folder / name if folder else None
    found: dict[str, Any] = json.loads(file.read_text()) if file and file.is_file() else {}
    return found


def commit() -> str | None:
    """The commit of the code that runs, `+changes` when files differ from it; None where there is no checkout."""
    asked = ("rev-parse", "HEAD"), ("status", "--porcelain")
    try:
        head, changes = (
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=20).stdout
            for words in asked
        )
    except (OSError, subprocess.SubprocessError):  # no git, or an image without the repository
        return None
    return head.strip() + ("+changes" if changes.strip() else "")


def _number(found: Any, sign: str = "") -> str:
    """`0.3356 ± 0.0065`."""
    if not isinstance(found, Mapping) or not isinstance(found.get("value"), int | float):
        return ""
    error = found.get("error")
    return f"{found['value']:{sign}.4f}" + (f" ± {error:.4f}" if isinstance(error, int | float) else "")
