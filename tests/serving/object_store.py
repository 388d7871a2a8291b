"""A real S3 server on loopback (moto's), in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.serving.servers import free_port, until


@contextmanager
def object_store(*buckets: str) -> Iterator[Mapping[str, str]]:
    """With these buckets, empty; what a client's environment needs to reach it."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _put(address), 60)
            assert all(_put(f"{address}/{bucket}") for bucket in buckets)
            keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
            yield {**keys, "AWS_ENDPOINT_URL": address, "MLFLOW_S3_ENDPOINT_URL": address, "AWS_EC2_METADATA_DISABLED": "true"}
        finally:
            process.kill()


def _put(address: str) -> bool:
    """Make the bucket; of the bare address: whether anything answers."""
    bare = address.count("/") == 2
    try:
        with urlopen(Request(address, method="GET" if bare else "PUT"), timeout=5) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False
