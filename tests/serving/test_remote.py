"""What is given by an address of S3 becomes a folder here; a path of this machine stays what it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving.remote import NotThere, local


def test_a_path_of_this_machine_is_given_back(tmp_path: Path) -> None:
    assert local(str(tmp_path)) == str(tmp_path)
    assert local("") == ""


def test_a_store_that_does_not_answer_is_named_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code = "from serving.remote import local, NotThere\ntry: local('s3://data/shop')\nexcept NotThere as problem: print(problem)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout  # AWS's threads
    assert said.startswith("s3://data/shop at http://127.0.0.1:9 cannot be read (")
    assert "check the address" in said
    assert issubclass(NotThere, ValueError)
