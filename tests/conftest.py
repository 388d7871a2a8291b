"""The small world every test may use: simulated once a session, trained once a session when first asked for."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: tests share two cores

from pathlib import Path

import pytest

from tests.world.generate import World, write_world

WORLD_SYSTEM = str(Path(__file__).parent / "world" / "system.py")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The tiny world's tables and its truth. Read them; never write into its folder."""
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def world_system() -> "System":  # noqa: F821
    """The tiny world as a system of its own."""
    from serving.system import load_system

    return load_system(WORLD_SYSTEM)
