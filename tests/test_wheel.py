"""The installed package works, not only a checkout: a wheel, a fresh environment, one command from an empty folder."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.world.plain import plain, write

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment_writes_a_system_and_checks_data_with_it(tmp_path):
    build = [sys.executable, "-m", "uv", "build", "--wheel", "--quiet", "--out-dir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, timeout=600)
    (wheel,) = (tmp_path / "dist").glob("shortlist-*.whl")
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, str(tmp_path / "env")], check=True)
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), "--no-deps", str(wheel)]
    subprocess.run(install, check=True)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # what the package needs is installed there
    data = write(plain(), tmp_path / "data")

    def shortlist(*arguments):
        command = [str(tmp_path / "env" / "bin" / "shortlist"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    where = subprocess.run([python, "-c", "import pipelines; print(pipelines.__file__)"], cwd=tmp_path, capture_output=True, text=True)
    assert str(site) in where.stdout  # the wheel's, not the checkout's
    made = shortlist("new", "mine", "--data", str(data))
    assert made.returncode == 0, made.stderr
    checked = shortlist("check", "mine.py", "--data", str(data))
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert "judged on" in checked.stdout
    repo = subprocess.run(
        [python, "-c", "from components.features.store import ROOT; print(*sorted((ROOT / 'feature_repo/shop').glob('*.*')))"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "feature_store.yaml" in repo.stdout
