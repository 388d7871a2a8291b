"""What the server's tests share: a door over the tiny bundle, a Redis, and the marker of tests that need Kafka."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import redis


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kafka: starts a real broker from the jars in the local Maven repository (about 15 s)")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """A Redis of this session's own, on a socket in a folder."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:  # a socket's path has to be short
        path = Path(folder) / "s"
        kept_nowhere = ["--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([program, "--port", "0", "--unixsocket", str(path), *kept_nowhere, "--loglevel", "warning"])
        try:
            from tests.serving.servers import until

            until(path.exists, 10)
            yield f"unix://{path}"
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """That Redis, empty: users, recalls and event ids of other tests would be known in it."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server over the tiny bundle, in this process."""
    from tests.serving.servers import door, tiny_options

    async with door(tiny_options(tmp_path)) as (_, made):
        yield made
