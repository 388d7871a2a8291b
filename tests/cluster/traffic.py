"""Users who ask the gateway at a steady rate, from a thread of their own, what each was answered, and what they click."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self
from zlib import crc32

import aiohttp

READ = 3  # places of a list; further down stands what a rule puts into everybody's, whatever was learnt


@dataclass(frozen=True)
class Told:
    """One answer."""

    at: float  # seconds since 1970, when it was asked for
    user: str
    bundle: str  # digest
    degraded: bool
    items: tuple[str, ...]


@dataclass
class Traffic:
    """`rate` questions a second for as long as the block lasts, each of the next user in turn.

    `liked`: what a user likes; every second user clicks the first of it that stands where it is read. `clicked_at`: the time clicks name.
    """

    url: str
    rate: float
    users: Sequence[str]
    liked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clicked_at: str = ""
    answers: list[Told] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)
    _thread: Thread | None = None

    def __enter__(self) -> Self:
        self._thread = Thread(target=lambda: asyncio.run(self._ask_all()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(60)

    def between(self, begin: float, end: float) -> list[Told]:
        """The answers to what was asked meanwhile."""
        found = [one for one in self.answers if begin <= one.at < end]
        assert found, "nobody was answered"
        return found

    async def _ask_all(self) -> None:
        began, sent, tasks = time.monotonic(), 0, set()
        connector = aiohttp.TCPConnector(limit=64)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(10)) as session:
            while not self._stop.is_set():
                task = asyncio.create_task(self._ask(session, self.users[sent % len(self.users)]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
                await asyncio.sleep(max(0.0, began + sent / self.rate - time.monotonic()))
            await asyncio.gather(*tasks)

    async def _ask(self, session: aiohttp.ClientSession, user: str) -> None:
        at = time.time()
        try:
            async with session.post(f"{self.url}/v1/recommendations", json={"user_id": user}) as reply:
                told = await reply.json()
                if reply.status == 200 and len(told["items"]) == 10:
                    items = tuple(item["item_id"] for item in told["items"])
                    self.answers.append(Told(at, user, told["bundle"].removeprefix("sha256:"), told["degraded"] is not None, items))
                    await self._click(session, user, told)
                else:
                    self.failed.append(f"{user}: {reply.status} {told}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(f"{user}: {error!r}")

    async def _click(self, session: aiohttp.ClientSession, user: str, told: dict[str, Any]) -> None:
        found = next((item["item_id"] for item in told["items"][:READ] if item["item_id"] in self.liked.get(user, ())), None)
        if found is None or crc32(user.encode()) % 2:
            return
        event = {"event_id": f"click-{told['request_id']}", "event_type": "click", "user_id": user, "item_id": found}
        event |= {"timestamp": self.clicked_at, "context": {"request_id": told["request_id"]}}
        async with session.post(f"{self.url}/v1/events", json={"events": [event]}) as reply:
            if reply.status != 200:
                self.failed.append(f"{user}: click {reply.status} {await reply.text()}")
