"""MLflow's notices: genuine and new ones poke the controller, all others are refused and change nothing."""

import asyncio
import base64
import hmac
import json
import time

import pytest
from aiohttp.test_utils import TestClient, TestServer

from components.release.rollout_webhook import EVENTS, WINDOW_SECONDS, BadNotice, Verifier, webhook

SECRET, NOW = "known to both", 1_800_000_000.0
BODY = json.dumps(
    {"entity": "model_version_alias", "action": "created", "data": {"name": "shortlist-shop", "alias": "champion", "version": "2"}}
).encode()


def signed(body: bytes = BODY, delivery: str = "d1", at: float = NOW, secret: str = SECRET) -> dict[str, str]:
    sent = str(int(at))
    content = b".".join((delivery.encode(), sent.encode(), body))
    signature = base64.b64encode(hmac.digest(secret.encode(), content, "sha256")).decode()
    return {"X-MLflow-Delivery-Id": delivery, "X-MLflow-Timestamp": sent, "X-MLflow-Signature": f"v1,{signature}"}


def test_what_mlflow_signs_is_taken_once() -> None:
    verifier = Verifier(SECRET)
    assert verifier.verified(signed(), BODY, NOW)["action"] == "created"
    with pytest.raises(BadNotice, match="came before"):
        verifier.verified(signed(), BODY, NOW + 1)
    assert verifier.verified(signed(delivery="d2"), BODY, NOW + 1)


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({}, BODY, "signature"),
        (signed(secret="guessed"), BODY, "signature"),
        (signed(), BODY + b" ", "signature"),
        (signed() | {"X-MLflow-Delivery-Id": "d9"}, BODY, "signature"),
        (signed() | {"X-MLflow-Timestamp": str(int(NOW) + 1)}, BODY, "signature"),
        (signed() | {"X-MLflow-Signature": "v1,é"}, BODY, "signature"),
        (signed(at=NOW - WINDOW_SECONDS - 1), BODY, "ago"),
        (signed(at=NOW + WINDOW_SECONDS + 1), BODY, "ago"),
    ],
)
def test_what_is_forged_changed_or_old_is_refused(headers: dict[str, str], body: bytes, message: str) -> None:
    with pytest.raises(BadNotice, match=message):
        Verifier(SECRET).verified(headers, body, NOW)


def test_an_old_delivery_cannot_come_again_once_it_is_forgotten() -> None:
    verifier = Verifier(SECRET)
    verifier.verified(signed(), BODY, NOW)
    later = NOW + 3 * WINDOW_SECONDS
    verifier.verified(signed(delivery="d2", at=later), BODY, later)
    with pytest.raises(BadNotice, match="ago"):
        verifier.verified(signed(), BODY, later)


def test_a_webhook_without_a_secret_does_not_begin() -> None:
    with pytest.raises(ValueError, match="SHORTLIST_WEBHOOK_SECRET"):
        Verifier("")


async def test_the_door_pokes_for_our_model_alone() -> None:
    pokes: list[int] = []
    app = webhook(Verifier(SECRET), "shortlist-shop", lambda: pokes.append(1), lambda: NOW)
    other = BODY.replace(b"shortlist-shop", b"shortlist-other")
    async with TestClient(TestServer(app)) as client:
        for headers, body, status in ((signed(), BODY, 204), (signed(), BODY, 401), (signed(other, "d2"), other, 204), ({}, BODY, 401)):
            assert (await client.post("/mlflow", data=body, headers=headers)).status == status
        assert (await client.get("/healthz")).status == 200
    assert pokes == [1]


async def test_a_real_mlflow_pokes_when_an_alias_is_moved(server: str) -> None:
    """Its own signature, over its own HTTP client."""
    from mlflow import MlflowClient

    poked = asyncio.Event()
    loop = asyncio.get_running_loop()
    app = webhook(Verifier(SECRET), "shortlist-noticed", lambda: loop.call_soon_threadsafe(poked.set), time.time)
    client = MlflowClient(tracking_uri=server, registry_uri=server)

    def moved(port: int) -> None:
        client.create_webhook("rollout", f"http://127.0.0.1:{port}/mlflow", list(EVENTS), secret=SECRET)
        client.create_registered_model("shortlist-noticed")
        run = client.create_run(client.create_experiment("noticed")).info.run_id
        client.create_model_version("shortlist-noticed", source=f"runs:/{run}/bundle", run_id=run)
        client.set_registered_model_alias("shortlist-noticed", "challenger", "1")

    async with TestClient(TestServer(app)) as door:
        await asyncio.to_thread(moved, door.port)
        async with asyncio.timeout(60):
            await poked.wait()
    assert poked.is_set()
