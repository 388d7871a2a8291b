"""The small world every test may use: simulated once a session, trained once a session when first asked for."""

import os
import signal
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: tests share two cores
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: what tests start and interrupt would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
if not hasattr(sys.modules["__main__"], "__file__"):  # a worker of pytest-xdist: pyspark takes it for a doctest and ends the process
    sys.modules["__main__"].__file__ = __file__

from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.system import System, load_system
from tests.world.generate import World, write_world

WORLD_SYSTEM = str(Path(__file__).parent / "world" / "system.py")


@dataclass(frozen=True)
class Trained:
    """The tiny world gone once through the loop, each stage's output in the folder of its name."""

    system: System
    home: Path
    bundle: Path

    def __getattr__(self, stage: str) -> Path:
        return self.home / stage

    @property
    def users(self) -> Path:
        """The states at the cut the bundle was learnt at."""
        return sorted((self.home / "features" / "cuts").iterdir())[-1] / "users"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The tiny world's tables and its truth. Read them; never write into its folder."""
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def world_system() -> System:
    """The tiny world as a system of its own."""
    return load_system(WORLD_SYSTEM)


@pytest.fixture(scope="session")
def trained(world: World, world_system: System, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The whole loop on the tiny world, through the functions of the design's section 9. About a minute; read only."""
    from tests.world.loop import known, learn

    home = tmp_path_factory.mktemp("trained")
    known(world_system, world, home)
    return Trained(world_system, home, learn(world_system, home))
