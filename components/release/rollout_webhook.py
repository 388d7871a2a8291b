"""The way in for MLflow's webhooks: an alias has moved, so the registry is asked now and not in some seconds.

MLflow signs `<delivery id>.<seconds since 1970>.<body>` with HMAC-SHA256 and the webhook's secret (header X-MLflow-Signature: `v1,` and
Base64). A notice decides nothing: what is rolled out the controller reads from the registry. So one that is lost costs seconds, and one
that is forged, late or sent twice is refused and would change nothing either.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

WINDOW_SECONDS = 300.0  # a notice is this old, or this far ahead, at most
_MAX_BYTES = 65_536
_ID, _TIME, _SIGNATURE = "X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature"
EVENTS = ("model_version_alias.created", "model_version_alias.deleted")


class BadNotice(ValueError):
    """Not a notice of the registry's, or not a new one."""


@dataclass
class Verifier:
    """Says of each delivery whether it is genuine and new. Deliveries are remembered as long as they could come again."""

    secret: str
    _seen: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError("a webhook needs a secret: set SHORTLIST_WEBHOOK_SECRET to the one it was made with")

    def verified(self, headers: Mapping[str, str], body: bytes, now: float) -> dict[str, object]:
        """What the notice says. Raises `BadNotice`."""
        delivery, sent, signature = (headers.get(name, "") for name in (_ID, _TIME, _SIGNATURE))
        if not delivery or not sent.isdecimal() or not hmac.compare_digest(signature.encode(), self._signed(delivery, sent, body)):
            raise BadNotice("the signature is not ours")
        if abs(now - int(sent)) > WINDOW_SECONDS:
            raise BadNotice(f"it was sent {now - int(sent):.0f} s ago; {WINDOW_SECONDS:.0f} are the most")
        self._seen = {name: at for name, at in self._seen.items() if now - at <= 2 * WINDOW_SECONDS}
        if delivery in self._seen:
            raise BadNotice("it came before")
        self._seen[delivery] = now
        told: dict[str, object] = json.loads(body)
        return told

    def _signed(self, delivery: str, sent: str, body: bytes) -> bytes:
        content = f"{delivery}.{sent}.".encode() + body
        return b"v1," + base64.b64encode(hmac.new(self.secret.encode(), content, hashlib.sha256).digest())


def webhook(verifier: Verifier, model: str, poke: Callable[[], None], clock: Callable[[], float]) -> web.Application:
    """POST /mlflow: 204 for a notice about the model or another, 401 for what is no notice; GET /healthz."""

    async def notice(request: web.Request) -> web.Response:
        import asyncio

        try:
            told = verifier.verified(request.headers, await request.read(), clock())
        except BadNotice as problem:
            return web.json_response({"error": {"code": "bad_notice", "message": str(problem)}}, status=401)
        data = told.get("data")
        if told.get("entity") == "model_version_alias" and isinstance(data, dict) and data.get("name") == model:
            await asyncio.to_thread(poke)
        return web.Response(status=204)

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    app = web.Application(client_max_size=_MAX_BYTES)
    app.add_routes([web.post("/mlflow", notice), web.get("/healthz", alive)])
    return app
