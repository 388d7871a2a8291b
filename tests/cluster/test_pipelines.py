"""Two trainings in a row on the cluster's pipelines: every step a pod of its own, a new day of data makes another bundle."""

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from pipelines.cluster import address
from pipelines.training import STEPS as STEPS_HERE
from serving.remote import send
from tests.cluster.conftest import objects
from tests.conftest import WORLD_SYSTEM
from tests.world.generate import write_world

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
STEPS = {*STEPS_HERE, "report"} - {"record", "sanity", "adopt"}


@pytest.fixture(scope="module")
def store(monkeypatch_module: pytest.MonkeyPatch) -> None:
    """S3 as this machine reaches it."""
    for name, value in {"AWS_ENDPOINT_URL": address(30900), "AWS_ACCESS_KEY_ID": "minio", "AWS_SECRET_ACCESS_KEY": "minio123"}.items():
        monkeypatch_module.setenv(name, value)


@pytest.fixture(scope="module")
def monkeypatch_module() -> pytest.MonkeyPatch:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def strangers_system(folder: Path) -> Path:
    """The folder of the tiny world's file as one brings it who has nothing else in the image: no ingest, no Feast repo of its own."""
    text = Path(WORLD_SYSTEM).read_text()
    text = text.replace('"tests/world/feature_repo"', '"feature_repo/shop"')
    text = text.replace('"tests.world.generate:ingest"', '"components.data.ingest:none_of_its_own"')
    folder.mkdir()
    (folder / "world.py").write_text(text)
    return folder


def submitted(data: str, until: str) -> list[str]:
    """The lines of a run that ended well."""
    command = [sys.executable, "-m", "pipelines", "pipeline", "submit", "s3://mlpipeline/given/world.py", "--host", address(30888)]
    done = subprocess.run([*command, "--data", data, "--until", until, "--fast"], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def pods_of(run: str) -> list[dict]:
    return [one for one in objects("pods", "kubeflow") if one["metadata"].get("labels", {}).get("pipeline/runid") == run]


def registered() -> list[str]:
    """The bundles of the model's versions in MLflow, oldest first."""
    asked = urllib.parse.urlencode({"filter": "name='shortlist-world'", "order_by": "version_number ASC"})
    with urllib.request.urlopen(f"{address(30500)}/api/2.0/mlflow/model-versions/search?{asked}", timeout=30) as reply:
        versions = json.load(reply).get("model_versions", [])
    return [tag["value"] for one in versions for tag in one["tags"] if tag["key"] == "bundle"]


def test_a_new_day_of_data_makes_another_bundle(store: None, tmp_path: Path) -> None:
    world = write_world(tmp_path / "late")
    early = tmp_path / "early"
    early.mkdir()
    cut = world.until - timedelta(days=1)
    for table in ("events", "items", "users", "context"):
        where = f"WHERE timestamp < TIMESTAMPTZ '{cut.isoformat()}' + INTERVAL 7 DAY" if table == "events" else ""
        duckdb.sql(f"COPY (SELECT * FROM '{tmp_path / 'late' / table}.parquet' {where}) TO '{early / table}.parquet'")
    send(strangers_system(tmp_path / "system"), "s3://mlpipeline/given")
    made: list[set[str]] = []
    for name, until in (("early", cut), ("late", world.until)):
        send(tmp_path / name, f"s3://mlpipeline/given/{name}")
        lines = submitted(f"s3://mlpipeline/given/{name}", until.isoformat())
        assert {line.split()[0].removeprefix("step=") for line in lines if line.endswith("state=succeeded")} >= STEPS
        run = lines[0].split()[1].rstrip(":")
        assert len({one["metadata"]["name"] for one in pods_of(run)}) >= len(STEPS)
        made.append(set(registered()))
    assert len(made[1] - made[0]) == 1, "the second day's bundle is another one"
