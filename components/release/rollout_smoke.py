"""Asks the recommender for lists of the new bundle before any user gets one."""

from dataclasses import dataclass

import requests

HEADER = "x-shortlist-bundle"  # whoever sends it is answered by that bundle, where it is loaded
USERS = tuple(f"shortlist-smoke-{number}" for number in range(20))  # nobody: their lists are not counted
_SECONDS = 5.0


@dataclass(frozen=True)
class Smoke:
    """`components.release.rollout.Smoke`: a list for each of `USERS`, on a connection of its own, so that every pod is asked."""

    url: str

    def __call__(self, digest: str) -> str:
        """What is wrong; empty when every list is whole, of the new bundle and of no lower rung."""
        return next((fault for user in USERS if (fault := self._asked(digest, user))), "")

    def _asked(self, digest: str, user: str) -> str:
        headers = {HEADER: digest, "connection": "close"}
        try:
            reply = requests.post(f"{self.url}/v1/recommendations", json={"user_id": user}, headers=headers, timeout=_SECONDS)
            told = reply.json()
        except (requests.RequestException, ValueError) as problem:
            return f"{self.url} does not answer ({problem})"
        if reply.status_code != 200:
            return f"{self.url} answered {reply.status_code}: {str(told)[:200]}"
        if told["bundle"] != f"sha256:{digest}":
            return f"asked for bundle {digest[:12]}, {told['bundle'][7:19]} answered"
        if told["degraded"]:
            return f"a list of rung {told['degraded']['rung']}: {told['degraded']['reason']}"
        return "" if told["items"] else "an empty list"
