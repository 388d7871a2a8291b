"""A running server as a policy: it is asked for each page, and told of each event before the next page is asked for."""

import json
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from components.data.video import words
from components.data.video.live import ShownPage, World
from components.data.video.pages import ANSWER, PageRequests, Slates
from components.data.video.tables import events_table, items_table

AT_ONCE = 500  # events in one request
SECONDS = 30.0  # an answer is waited for so long
_CONTEXT = "context_"


class RefusedByServer(RuntimeError):
    """The server did not take what the world sent it."""


@dataclass
class OverHttp:
    """Asks `address` (http://HOST:PORT). `world.step(remote, heard=remote.tell)` is the whole live loop.

    `degraded` counts the answers that came from a lower rung. Videos from row `uploaded` on are posted when they are there. Raises
    `RefusedByServer` for any answer but 200, and for a refused event or video.
    """

    world: World
    address: str
    degraded: int = 0
    uploaded: int = 0  # rows of the library before this one are known there
    _connection: HTTPConnection | None = field(default=None, repr=False)

    def __call__(self, visits: PageRequests) -> Slates:
        self._upload()
        answers = [self._asked(visits, s) for s in range(len(visits))]
        rows = np.full((len(visits), ANSWER), -1, np.int32)
        for s, answer in enumerate(answers):
            found = [int(item["item_id"][1:]) for item in answer["items"][:ANSWER]]
            rows[s, : len(found)] = found
            self.degraded += answer["degraded"] is not None
        return Slates(rows, tuple(answer["request_id"] for answer in answers))

    def _asked(self, visits: PageRequests, s: int) -> Any:
        user = visits.user[s]
        context = {"region": words.REGIONS[self.world.crowd.region[user]], "device_type": words.DEVICES[visits.device[s]], "page": "home"}
        return self._posted("recommendations", {"user_id": self.world.crowd.user_id(user), "k": ANSWER, "context": context})

    def _upload(self) -> None:
        """Post the videos that were uploaded since the last pages."""
        rows = items_table(self.world.library, self.uploaded, self.world.there).to_pylist()
        for start in range(0, len(rows), AT_ONCE):
            reply = self._posted("items", {"items": [as_posted(row) for row in rows[start : start + AT_ONCE]]})
            if reply["refused"]:
                raise RefusedByServer(
                    f"{self.address} refused {len(reply['refused'])} videos, the first for: {reply['refused'][0]['message']}"
                )
        self.uploaded = self.world.there

    def tell(self, page: ShownPage) -> None:
        """Send the page's events, some hundreds at a time."""
        rows = events_table(self.world, [page]).to_pylist()
        for start in range(0, len(rows), AT_ONCE):
            reply = self._posted("events", {"events": [as_sent(row) for row in rows[start : start + AT_ONCE]]})
            self._all_taken(reply, "events")

    def _all_taken(self, reply: Any, what: str) -> None:
        refused = reply["refused"]
        if refused:
            raise RefusedByServer(f"{self.address} refused {len(refused)} {what}, the first for: {refused[0]['message']}")

    def _posted(self, what: str, body: Any) -> Any:
        if self._connection is None:
            at = urlsplit(self.address)
            self._connection = HTTPConnection(at.hostname or "", at.port, timeout=SECONDS)
        self._connection.request("POST", f"/v1/{what}", json.dumps(body), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RefusedByServer(f"{self.address}/v1/{what} answered {response.status}: {text[:300].decode(errors='replace')}")
        return json.loads(text)

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()


def as_sent(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the events table as the wire has it: what is missing is left out, the context is nested."""
    said = {name: value for name, value in row.items() if value is not None and not name.startswith(_CONTEXT)}
    said["timestamp"] = row["timestamp"].isoformat()
    context = {name.removeprefix(_CONTEXT): value for name, value in row.items() if name.startswith(_CONTEXT) and value is not None}
    return said | ({"context": context} if context else {})


def as_posted(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the items table as the wire has it."""
    said = {name: row[name] for name in ("item_id", "category", "brand", "title")}
    flags = row["policy_flags"].split(",") if row["policy_flags"] else []
    return said | {"created_at": row["created_at"].isoformat(), "policy_flags": flags}
