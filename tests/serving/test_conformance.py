"""The inference protocols as their own clients speak them: kserve's for REST and gRPC, Triton's for HTTP and gRPC."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.serving.servers import free_port, running, tiny_options, until

ROOT = Path(__file__).parents[2]


def clients(whose: str, http: str, grpc: str) -> list[dict[str, Any]]:
    line = [sys.executable, "-m", "tests.serving.conformance", whose, http, grpc, "shortlist-tiny"]
    asked = subprocess.run(
        line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert asked.returncode == 0, asked.stderr[-2000:]
    return [json.loads(text) for text in asked.stdout.splitlines() if text.startswith("{")]


def test_real_clients_get_the_list_of_the_plain_route_and_errors_they_can_read(tmp_path: Path) -> None:
    grpc_port = free_port()
    with running(tiny_options(tmp_path, grpc_port=grpc_port)) as server:
        asked = {"user_id": "u01", "k": 2}
        until(lambda: server.ask("POST", "/v1/recommendations", asked)[1]["degraded"] is None, 30)
        answers = [server.ask("POST", "/v1/recommendations", asked)[1] for _ in range(10)]
        listed = next(answer["items"] for answer in answers if answer["degraded"] is None)
        told = [one for whose in ("kserve", "triton") for one in clients(whose, f"127.0.0.1:{server.port}", f"127.0.0.1:{grpc_port}")]
    wrong = [one for one in told if one["call"] in ("wrong input", "unknown model")]
    right = [one for one in told if one not in wrong]
    assert len(right) >= 33
    assert [one for one in right if "failed" in one] == []
    lists = [one["gave"] for one in right if one["call"].startswith("infer") and one["gave"] != ["degraded"]]
    assert lists
    assert lists == [[item["item_id"] for item in listed]] * len(lists)
    assert [one["gave"] for one in right if "live" in one["call"] or "ready" in one["call"]].count(False) == 0
    assert len(wrong) == 4
    assert all(name in one["failed"] for one in wrong for name in ("InferenceServerException",))
    assert ["request" in one["failed"] for one in wrong if one["call"] == "wrong input"] == [True, True]
