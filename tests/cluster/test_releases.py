"""Two real bundles on the whole cluster: an alias moves in MLflow, and users are asked all the while.

Needs two versions of different bundles in the cluster's MLflow (two trainings, or `shortlist register`), and `manifests/overlays/kind`. The
controller's steps are made short for it and put back after. `SHORTLIST_RATE`: requests a second, 50 where a machine is quiet.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from components.release.kube import KubeCluster
from components.release.registry import CHALLENGER, CHAMPION
from components.release.rollout_record import RolloutRecord
from components.release.rollout_state import ENDED
from components.step import digest_of
from pipelines.cluster import address
from serving.bundle.bundle import show
from serving.state.user_state import StateTable
from tests.cluster.conftest import SPACE, kubectl, objects
from tests.cluster.spoilt import WAYS, spoilt
from tests.cluster.traffic import Traffic

pytestmark = pytest.mark.cluster
MODEL, RATE = "shortlist-shop", float(os.environ.get("SHORTLIST_RATE", "50"))
HURRY = ("--step-seconds=40", "--step-requests=100", "--judge-seconds=5", "--grace-seconds=20")
ASKED = 2000  # users who know what they like: enough that hardly one is asked again after a click, which lifts what was clicked
TAKEN_UP = 8.0  # seconds after a step is seen to hold until every recommender knows of it


@pytest.fixture(scope="module")
def kube() -> Iterator[KubeCluster]:
    """The shop's record, its controller in a hurry."""
    deployments = {one["metadata"]["name"]: one for one in objects("deployments")}
    given = deployments["rollout"]["spec"]["template"]["spec"]["containers"][0]["command"]
    kept = [word for word in given if not word.startswith(tuple(flag.partition("=")[0] for flag in HURRY))]
    _told([*kept, *HURRY])
    yield KubeCluster("shop", SPACE)
    _told(kept)


def _told(command: list[str]) -> None:
    """The controller started with these words."""
    words = ",".join(f'"{word}"' for word in command)
    patch = f'[{{"op": "replace", "path": "/spec/template/spec/containers/0/command", "value": [{words}]}}]'
    kubectl("-n", SPACE, "patch", "deployment", "rollout", "--type=json", "-p", patch)
    kubectl("-n", SPACE, "rollout", "status", "deployment/rollout", "--timeout=240s")


@pytest.fixture(scope="module")
def mlflow() -> MlflowClient:
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


@pytest.fixture(scope="module")
def users(mlflow: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Those the champion knows: what newcomers are answered asks no ranker."""
    version = mlflow.get_model_version_by_alias(MODEL, CHAMPION)
    table = StateTable.load(Path(mlflow.download_artifacts(version.run_id, "users", str(tmp_path_factory.mktemp("users")))))
    return [name.decode() for name in np.asarray(table.user_ids).tolist()]


def versions(mlflow: MlflowClient) -> tuple[str, str]:
    """Champion's version, and the newest of another bundle."""
    champion = mlflow.get_model_version_by_alias(MODEL, CHAMPION)
    found = sorted(mlflow.search_model_versions(f"name = '{MODEL}'"), key=lambda one: -int(one.version))
    other = next((one for one in found if "forged" not in one.tags and one.tags["bundle"] != champion.tags["bundle"]), None)
    if other is None:
        pytest.skip("MLflow holds one bundle: train a second time, with a new day of data")
    return champion.version, other.version


def digest(mlflow: MlflowClient, version: str) -> str:
    found: str = mlflow.get_model_version(MODEL, version).tags["bundle"]
    return found


def until(kube: KubeCluster, there: Callable[[RolloutRecord], bool], seconds: float) -> RolloutRecord:
    """The record once it is so."""
    ends = time.monotonic() + seconds
    while not there(record := kube.record()):
        assert time.monotonic() < ends, [f"{line.phase} {line.percent}: {line.sentence}" for line in record.lines[-8:]]
        time.sleep(0.5)
    return record


def of(digest: str, *phases: str, percent: int | None = None) -> Callable[[RolloutRecord], bool]:
    """Whether the rollout is this bundle's, in one of the phases; of a step: once it is seen to hold."""

    def there(record: RolloutRecord) -> bool:
        now = record.rollout
        if now is None or now.new.digest != digest:
            return False
        return now.phase in phases if percent is None else now.percent == percent and now.held > 0

    return there


def weights() -> list[dict[str, int]]:
    """Of each of the InferenceServices' routes: the first letters of a bundle -> its weight."""
    return [
        {one["name"].split("-b")[1][:12]: one.get("weight", 1) for rule in route["spec"]["rules"] for one in rule["backendRefs"]}
        for route in objects("httproutes")
        if route["metadata"]["name"].startswith(("shop-retrieval", "shop-ranking"))
    ]


def test_the_alias_moves_and_the_users_follow_step_by_step_without_losing_a_request(
    kube: KubeCluster, mlflow: MlflowClient, users: list[str]
) -> None:
    old, new = versions(mlflow)
    now, then = digest(mlflow, old), digest(mlflow, new)
    with Traffic(address(30080), RATE, users) as traffic:
        mlflow.set_registered_model_alias(MODEL, CHALLENGER, new)
        for percent in (5, 25, 50):
            until(kube, of(then, percent=percent), 400)
            assert all(given == {now[:12]: 100 - percent, then[:12]: percent} for given in weights()), weights()
            begin = time.time() + TAKEN_UP
            until(kube, lambda record, at=percent: record.rollout is not None and record.rollout.percent != at, 200)  # type: ignore[misc]
            answers = traffic.between(begin, time.time() - 1.0)
            share = sum(one.bundle == then for one in answers) / len(answers)
            print(f"{percent} %: {share:.2%} of {len(answers)} answers")
            assert abs(share - percent / 100) <= 4 * sqrt(percent / 100 * (1 - percent / 100) / len(answers))
        until(kube, of(then, "warm", "done"), 120)
        begin = time.time() + TAKEN_UP
        until(kube, of(then, "done"), 180)
    assert mlflow.get_model_version_by_alias(MODEL, CHAMPION).version == new
    assert {one.bundle for one in traffic.between(begin, time.time())} == {then}
    print(f"{len(traffic.answers)} answers, {len(traffic.failed)} failed, {sum(one.degraded for one in traffic.answers)} degraded")
    assert traffic.failed == []
    assert {one.bundle for one in traffic.answers} == {now, then}


def test_whoever_is_killed_on_the_way_it_ends_as_it_should(kube: KubeCluster, mlflow: MlflowClient, users: list[str]) -> None:
    """Back to the bundle before: the controller at 5 %, a pod of the new bundle at 25 %, Redis at 50 %, all at once and by force."""
    old, new = versions(mlflow)
    now, then = digest(mlflow, old), digest(mlflow, new)
    with Traffic(address(30080), RATE / 2, users) as traffic:
        mlflow.set_registered_model_alias(MODEL, CHALLENGER, new)
        until(kube, of(then, percent=5), 400)
        _kill(SPACE, "rollout-")
        until(kube, of(then, percent=25), 400)
        _kill(SPACE, f"shop-ranking-b{then[:12]}")
        until(kube, lambda record: of(then, percent=50)(record) or of(then, *ENDED)(record), 400)
        _kill("redis", "redis-")
        ended = until(kube, of(then, *ENDED), 500)
    print(f"{len(traffic.answers)} answers, {len(traffic.failed)} failed, {sum(one.degraded for one in traffic.answers)} degraded")
    assert ended.rollout is not None
    print(ended.rollout.phase, ended.rollout.reason)
    champion = then if ended.rollout.phase == "done" else now  # a guard may have taken a killed pod for a fault: then all is as before
    assert mlflow.get_model_version_by_alias(MODEL, CHAMPION).tags["bundle"] == champion
    assert all(max(given, key=lambda bundle: given[bundle]) == champion[:12] for given in weights()), weights()
    assert traffic.failed == []


def _kill(space: str, begins: str) -> None:
    names = [one["metadata"]["name"] for one in objects("pods", space) if one["metadata"]["name"].startswith(begins)]
    assert names, begins
    kubectl("-n", space, "delete", "pod", *names, "--grace-period=0", "--force", "--wait=false")


@dataclass(frozen=True)
class Release:
    """What the champion's version holds, fetched here."""

    version: str
    run: str
    bundle: Path
    users: Path

    @property
    def digest(self) -> str:
        return str(show(self.bundle)["digest"]).removeprefix("sha256:")


@pytest.fixture
def champion(mlflow: MlflowClient, tmp_path: Path) -> Iterator[Release]:
    version = mlflow.get_model_version_by_alias(MODEL, CHAMPION)
    parts = [Path(mlflow.download_artifacts(version.run_id, name, str(tmp_path))) for name in ("bundle", "users")]
    yield Release(version.version, version.run_id, *parts)
    shutil.rmtree(tmp_path)


def registered(mlflow: MlflowClient, champion: Release, folder: Path, digest: str) -> str:
    """The version of `folder` with the champion's users, as `register` leaves one that passed the gate; `versions` leaves it out."""
    run = mlflow.create_run(mlflow.get_run(champion.run).info.experiment_id, run_name="forged")
    mlflow.log_artifacts(run.info.run_id, str(folder), "bundle")
    mlflow.log_artifacts(run.info.run_id, str(champion.users), "users")
    tags = {"bundle": digest, "users": digest_of(champion.users), "gate": "passed", "judged": digest, "forged": "yes"}
    made = mlflow.create_model_version(MODEL, f"runs:/{run.info.run_id}/bundle", run.info.run_id, tags=tags)
    return str(made.version)


def test_a_forged_bundle_is_never_asked(kube: KubeCluster, mlflow: MlflowClient, users: list[str], champion: Release) -> None:
    """One byte of a model is another under the old digest: refused before a pod fetches it, with the reason at its version."""
    before = champion.digest
    other = sha256(str(time.time()).encode()).hexdigest()  # of its own: the record may tell of an earlier one
    manifest = champion.bundle / "bundle.json"
    manifest.write_text(manifest.read_text().replace(before, other))
    version = registered(mlflow, champion, champion.bundle, other)
    try:
        with Traffic(address(30080), RATE / 2, users) as traffic:
            mlflow.set_registered_model_alias(MODEL, CHALLENGER, version)
            ended = until(kube, of(other, *ENDED), 300)
        _refused(ended, mlflow, before)
        assert not [one["metadata"]["name"] for one in objects("pods") if f"-b{other[:12]}" in one["metadata"]["name"]]
        assert {one.bundle for one in traffic.answers} == {before}
        assert traffic.failed == []
    finally:
        mlflow.delete_model_version(MODEL, version)


@pytest.mark.parametrize("how", WAYS)
def test_a_bundle_that_answers_badly_is_withdrawn_alone(
    kube: KubeCluster, mlflow: MlflowClient, users: list[str], champion: Release, how: str
) -> None:
    """Its content is what its digest says. Users like what the champion showed them; no answer fails, none is of it after."""
    before, users = champion.digest, users[:ASKED]
    with Traffic(address(30080), RATE / 2, users) as traffic:
        liked = _shown(traffic)
    spoiled = spoilt(champion.bundle, how, champion.bundle.parent / "out")
    former = kube.record().rollout  # perhaps of the same bundle, in an earlier try
    version = registered(mlflow, champion, spoiled, spoiled.name)
    cut = f"{show(champion.bundle)['span']['cut']}T12:00:00+00:00"
    try:
        with Traffic(address(30080), RATE / 2, users, clicked_at=cut) as traffic:
            mlflow.set_registered_model_alias(MODEL, CHALLENGER, version)
            judged = of(spoiled.name, "canary", "withdraw", *ENDED)
            until(kube, lambda record: record.rollout != former and judged(record), 1200)  # one that does not load is waited for
            traffic.liked = liked
            until(kube, of(spoiled.name, "withdraw", *ENDED), 1200)
            begin = time.time() + TAKEN_UP
            ended = until(kube, of(spoiled.name, *ENDED), 300)
            until(kube, lambda _: time.time() > begin + 5.0, 60)
        of_it = sum(one.bundle != before for one in traffic.answers)
        print(f"{how}: {len(traffic.answers)} answers, {of_it} of it, {len(traffic.failed)} failed")
        _refused(ended, mlflow, before)
        assert {one.bundle for one in traffic.between(begin, time.time())} == {before}
        assert traffic.failed == []
    finally:
        mlflow.delete_model_version(MODEL, version)


def _shown(traffic: Traffic) -> dict[str, tuple[str, ...]]:
    """What each user is shown."""
    ends = time.monotonic() + 400
    while len(shown := {answer.user: answer.items for answer in list(traffic.answers)}) < len(traffic.users):
        assert time.monotonic() < ends, traffic.failed[-3:]
        time.sleep(0.2)
    return shown


def _refused(ended: RolloutRecord, mlflow: MlflowClient, before: str) -> None:
    """With a reason, the champion's alias where it was and nobody challenging it."""
    assert ended.rollout is not None
    print(ended.rollout.reason)
    assert ended.rollout.phase == "refused", ended.rollout
    assert ended.rollout.reason
    assert CHALLENGER not in mlflow.get_registered_model(MODEL).aliases
    assert mlflow.get_model_version_by_alias(MODEL, CHAMPION).tags["bundle"] == before
