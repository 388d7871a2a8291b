"""What two bundles did over the same time: answers from Prometheus, clicks from the exposure records and the event log."""

import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import requests

from components.release.rollout import Unreachable
from components.release.rollout_guards import Answers, Compared, Histogram
from components.release.rollout_smoke import USERS
from components.release.sequential import Rate
from serving.events.log import LogUnavailable
from serving.events.sqlite import read_log
from serving.exposures.shown import user_key
from serving.exposures.tables import SHOWN, read_shown, written_before

_ROUTE = "/v1/recommendations"
_INNER = ("/v1/retrieve", "/v1/rank")  # whose errors users see as lower rungs, as they see a busy machine
_LETTERS = 12  # of a digest, in a label
_REMEMBERED = 2_000_000  # lists whose clicks may still come
_NOBODY = {0, *map(user_key, USERS)}  # 0: consents to nothing personal, so cannot be counted once
_SECONDS = 10.0
_LATELY = 60  # seconds without a scrape of any server after which nothing is known


@dataclass
class Prometheus:
    """Counts by bundle over the time since a rollout began. Each figure is a sum over all pods, however often one was restarted."""

    url: str

    def answers(self, digests: Iterable[str], since: float) -> dict[str, Answers]:
        """By digest. Raises `Unreachable` where there are no figures of any bundle at all."""
        labels = {digest[:_LETTERS]: digest for digest in digests}
        where, span = f'bundle=~"{"|".join(labels)}"', f"[{max(15, int(time.time() - since))}s]"

        def increase(by: str, metric: str, more: str = "") -> list[tuple[dict[str, str], float]]:
            return self._asked(f"sum by (bundle{by}) (increase({metric}{{{where}{more}}}{span}))")

        asked = increase(",route,status", "shortlist_requests_total", f',route=~"{"|".join((_ROUTE, *_INNER))}"')
        if not self._asked(f"count(count_over_time(shortlist_bundle_info{{{where}}}[{_LATELY}s]))"):
            raise Unreachable(f"Prometheus at {self.url} has scraped no server of these bundles for {_LATELY} s")
        rungs, empty = increase(",rung", "shortlist_rung_total"), increase("", "shortlist_empty_lists_total")
        seconds, scores = increase(",le", "shortlist_request_seconds_bucket"), increase(",le", "shortlist_score_bucket")
        return {
            digest: Answers(
                _sum([one for one in asked if one[0]["route"] == _ROUTE], label),
                _sum([one for one in asked if one[0]["status"].startswith("5")], label),
                _sum(rungs, label),
                _sum(empty, label),
                _sum([one for one in rungs if one[0]["rung"] != "full"], label),
                _histogram(seconds, label),
                _histogram(scores, label),
            )
            for label, digest in labels.items()
        }

    def _asked(self, query: str) -> list[tuple[dict[str, str], float]]:
        try:
            reply = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=_SECONDS)
            reply.raise_for_status()
            told: list[dict[str, Any]] = reply.json()["data"]["result"]
        except (requests.RequestException, ValueError, KeyError) as problem:
            raise Unreachable(f"Prometheus at {self.url} does not answer ({problem})") from problem
        return [(one["metric"], float(one["value"][1])) for one in told]


def _sum(series: list[tuple[dict[str, str], float]], bundle: str) -> int:
    return round(sum(value for labels, value in series if labels.get("bundle") == bundle))


def _histogram(series: list[tuple[dict[str, str], float]], bundle: str) -> Histogram:
    """From Prometheus' cumulative buckets."""
    found = sorted(
        (inf if labels["le"] == "+Inf" else float(labels["le"]), value) for labels, value in series if labels["bundle"] == bundle
    )
    counts = np.maximum(np.diff([0.0, *(value for _, value in found)]), 0)
    return Histogram(tuple(bound for bound, _ in found), tuple(round(count) for count in counts))


@dataclass
class Clicks:
    """Own lists and clicked ones of each user and bundle since the new one's first of this rollout; a reading goes on from the last."""

    serving: Path  # folder of the event log, and of the exposures in it
    new: str  # digest
    chosen: frozenset[str]  # types of events that say that a list was of use
    since: float = 0.0  # when the rollout began: the bundle may have answered long before, as one that comes back
    _began: bool = False
    _after: tuple[int, int] = (0, 0)
    _lists: dict[str, dict[int, list[int]]] = field(default_factory=lambda: defaultdict(dict))  # bundle -> user -> lists, clicked
    _open: dict[str, list[int]] = field(default_factory=dict)  # request -> its user's counts, until its first click
    _early: set[str] = field(default_factory=set)  # requests whose click was read before their list

    def rates(self, old: str) -> tuple[Rate, Rate]:
        """Of the old digest and of the new one. Raises `Unreachable`."""
        try:
            self._read_on()
        except (LogUnavailable, sqlite3.Error, OSError) as problem:
            raise Unreachable(f"what was shown cannot be read in {self.serving} ({problem})") from problem
        return self._rate(old), self._rate(self.new)

    def _read_on(self) -> None:
        shown, acted = self._after
        shown = shown or written_before(self.serving / "exposures", SHOWN, self.since)
        for exposure in read_shown(self.serving / "exposures", after=shown):
            shown, bundle = exposure.seq, exposure.bundle.removeprefix("sha256:")
            self._began = self._began or bundle == self.new
            if self._began and exposure.user_key not in _NOBODY:
                own = {} if exposure.about else self._lists[bundle]  # an item page's list is another question
                counts = own.setdefault(exposure.user_key, [0, 0])
                counts[0] += 1
                self._open[exposure.request_id] = counts
                if exposure.request_id in self._early:
                    self._clicked(exposure.request_id)
        if (self.serving / "events.sqlite").is_file():
            for seq, event in read_log(self.serving, acted):
                acted = seq
                if event.event_type in self.chosen and event.context.request_id:
                    self._clicked(event.context.request_id)
        while len(self._open) > _REMEMBERED:
            del self._open[next(iter(self._open))]
        self._after = shown, acted

    def _clicked(self, request_id: str) -> None:
        counts = self._open.pop(request_id, None)
        if counts is not None:
            counts[1] += 1
            self._early.discard(request_id)
        elif len(self._early) < _REMEMBERED:
            self._early.add(request_id)

    def _rate(self, digest: str) -> Rate:
        return Rate.of(np.array(list(self._lists[digest].values()), np.float64).reshape(-1, 2))


@dataclass
class Measured:
    """`components.release.rollout.Figures`. `serving` None: nobody tells of clicks."""

    prometheus: Prometheus
    serving: Path | None = None
    chosen: frozenset[str] = frozenset()
    _clicks: Clicks | None = None
    _of: float = 0.0  # the rollout the clicks are of: when it began

    def __call__(self, old: str, new: str, since: float) -> Compared:
        answers = self.prometheus.answers((old, new), since)
        if self.serving is None:
            return Compared(answers[old], answers[new])
        if self._clicks is None or self._of != since:
            self._clicks, self._of = Clicks(self.serving, new, self.chosen, since), since
        return Compared(answers[old], answers[new], self._clicks.rates(old))
