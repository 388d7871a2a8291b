"""What `shortlist rollout …` does on a cluster: a person's wishes go into the record, the three programs run until they are stopped."""

import signal
import time
from pathlib import Path
from threading import Event

import msgspec
import typer
from prometheus_client import Counter, Gauge, start_http_server

from components.release.kube import KubeCluster, changed
from components.release.registry import model_name
from components.release.rollout import Controller, Refused, Unreachable
from components.release.rollout_figures import Measured, Prometheus
from components.release.rollout_follow import Follower
from components.release.rollout_names import Registry
from components.release.rollout_record import RolloutLine, RolloutRecord, wished
from components.release.rollout_smoke import Smoke
from components.release.rollout_state import RolloutPolicy, told
from components.release.shelf import Shelf, Stager, s3
from serving.system import load_system

TICK_SECONDS = 2.0


def asked(system: str, namespace: str, wish: str, more: str = "") -> str:
    """Write a person's wish into the record; the state then, as a sentence. Raises `ValueError` for a wish that cannot be."""
    record = changed(KubeCluster(load_system(system).name, namespace), lambda record: wished(record, wish, more, time.time()))
    return f"{wish}: noted. {_said(record)}"


def status(system: str, namespace: str) -> str:
    return _said(KubeCluster(load_system(system).name, namespace).record())


def lines(system: str, namespace: str) -> tuple[RolloutLine, ...]:
    return KubeCluster(load_system(system).name, namespace).record().lines


def _said(record: RolloutRecord) -> str:
    return f"Rollout {record.rollout.id}: {told(record.rollout)}." if record.rollout else "No rollout yet."


def control(
    system: str, namespace: str, home: Path, registry: str, prometheus: str, recommender: str, feedback: Path | None, policy: RolloutPolicy,
    port: int,
) -> None:  # fmt: skip
    """Until told to stop. What does not answer is asked again: the controller itself never ends by it."""
    loaded = load_system(system)
    names = Registry(loaded, home, registry)
    figures = Measured(Prometheus(prometheus.rstrip("/")), feedback, frozenset({"click", *loaded.learning.positives}))
    stager = Stager(names, Shelf(s3(), loaded))
    controller = Controller(KubeCluster(loaded.name, namespace), names, stager, figures, Smoke(recommender.rstrip("/")), policy)
    metrics, said, stop = _Shown(loaded.name), "", _stopped()
    start_http_server(port)
    while not stop.is_set():
        try:
            record = controller.tick(time.time())
            metrics.show(record, bool(controller.problem))
            now = controller.status(record)
        except Unreachable as problem:
            now = str(problem)
        if now != said:
            typer.echo(now)
        said = now
        stop.wait(TICK_SECONDS)


class _Shown:
    """The state as metrics: which phase, at how many percent, how many decisions of each kind."""

    def __init__(self, system: str) -> None:
        self._system, self._counted, self._phase = system, -1, ""
        self.phase = Gauge("shortlist_rollout_phase", "1 for the phase the rollout is in", ["system", "phase"])
        self.percent = Gauge("shortlist_rollout_percent", "of the users whom the new bundle answers", ["system"])
        self.decisions = Counter("shortlist_rollout_decisions", "decisions by what they led to", ["system", "phase"])
        self.problem = Gauge("shortlist_rollout_unreachable", "1 while something the controller asks does not answer", ["system"])

    def show(self, record: RolloutRecord, problem: bool) -> None:
        self.problem.labels(self._system).set(problem)
        if record.rollout is None:
            return
        if self._phase and self._phase != record.rollout.phase:
            self.phase.labels(self._system, self._phase).set(0)
        self._phase = record.rollout.phase
        self.phase.labels(self._system, self._phase).set(1)
        self.percent.labels(self._system).set(record.rollout.percent)
        for line in record.lines:
            if line.number > self._counted:
                self.decisions.labels(self._system, line.phase).inc()
                self._counted = line.number


def webhook(system: str, namespace: str, secret: str, port: int) -> None:
    """Until told to stop."""
    from aiohttp import web

    from components.release.rollout_webhook import Verifier
    from components.release.rollout_webhook import webhook as application

    loaded = load_system(system)
    cluster = KubeCluster(loaded.name, namespace)

    def poke() -> None:
        changed(cluster, lambda record: msgspec.structs.replace(record, poked=time.time()))

    web.run_app(application(Verifier(secret), model_name(loaded), poke, time.time), port=port, print=None)


def follow(system: str, namespace: str, into: Path, every: float) -> None:
    """Until told to stop. What does not answer leaves the file as it was."""
    loaded = load_system(system)
    cluster = KubeCluster(loaded.name, namespace)
    follower, said, stop = Follower(cluster, Shelf(s3(), loaded), loaded.name, cluster.namespace, into), "", _stopped()
    while not stop.is_set():
        try:
            now = follower.step()
        except (Unreachable, Refused) as problem:
            now = str(problem)
        if now and now != said:
            typer.echo(now)
        said = now or said
        stop.wait(every)


def _stopped() -> Event:
    """Set when this process is told to stop."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
