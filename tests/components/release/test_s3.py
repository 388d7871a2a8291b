"""A registry whose files lie on S3, where its clients themselves put and fetch them."""

from pathlib import Path

import boto3
import pytest

from components.release import releases, sync
from components.release.fetch import NotFetched
from components.release.registry import open_registry
from serving.bundle.bundle import verify
from tests.components.release.made import TINY, Made
from tests.components.release.mlflow_server import MlflowServer
from tests.serving.object_store import object_store

Two = tuple[Made, Made]


def move(tracking: str, version: str) -> None:
    with open_registry(None, tracking) as client:
        client.set_registered_model_alias("shortlist-tiny", "champion", version)


def test_what_one_machine_registers_another_answers_from_and_damage_or_absence_changes_nothing(
    two: Two, empty: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MlflowServer(tmp_path / "mlflow", store="s3://models/mlflow")
    server.folder.mkdir()
    (server.folder / "mlflow.db").write_bytes(empty)
    with object_store("models") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        server.start()
        try:
            for made in two:
                made.register(tmp_path / "out", tmp_path / "trainer", server.address)
            bucket, home = boto3.resource("s3", endpoint_url=environment["AWS_ENDPOINT_URL"]).Bucket("models"), tmp_path / "elsewhere"
            assert sync.sync(TINY, home, server.address).digest == two[0].digest
            (light,) = (one for one in bucket.objects.all() if one.key.endswith("/bundle/light.onnx") and _of(one.key, server, "2"))
            sound = light.get()["Body"].read()
            light.put(Body=b"damaged")
            move(server.address, "2")
            with pytest.raises(NotFetched, match=r"/bundle was downloaded and refused: .* light\.onnx was changed"):
                sync.sync(TINY, home, server.address)
            assert releases.chosen("tiny", home) == two[0].digest
            light.put(Body=sound)
            assert sync.sync(TINY, home, server.address).changed
            assert verify(releases.place_of(two[1].digest, home).bundle) == f"sha256:{two[1].digest}"
        finally:
            server.stop()


def _of(key: str, server: MlflowServer, number: str) -> bool:
    """Whether the object belongs to the version of this number."""
    with open_registry(None, server.address) as client:
        return str(client.get_model_version("shortlist-tiny", number).run_id) in key
