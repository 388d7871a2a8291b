"""A deleted user is a new user: in the next answer, in other workers, after restarts, without the store; a deleted item is gone."""

import threading
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.deleted_users import DeletedUsers
from serving.events.sqlite import SqliteLog
from serving.messages import ERASE, Event, RecommendationRequest
from serving.new_items.safety import Safety
from serving.state.fold import Fold
from serving.state.sqlite import SqliteStore
from serving.state.states import States
from serving.state.store import StateEvent
from serving.state.user_state import UserState
from serving.worker.options import Options
from tests.serving.servers import Running, door, running, tiny_options, until
from tests.serving.tiny_bundle import DAY, states, system

AT, LATER, BEFORE = "2024-10-04T12:00:00Z", "2024-10-04T12:00:30Z", "2024-10-04T11:00:00Z"  # of the server's clock, which starts at AT


async def ids(client: httpx.AsyncClient, user: str = "u01", **more: Any) -> list[str]:
    for _ in range(20):  # a busy machine answers from a lower rung now and then
        answer = (await client.post("/v1/recommendations", json={"user_id": user, **more})).json()
        if answer["degraded"] is None:
            break
    return [item["item_id"] for item in answer["items"]]


async def bought(client: httpx.AsyncClient, number: int, item: str, at: str, **who: str) -> None:
    event = {"event_id": f"e{number}", "event_type": "purchase", "item_id": item, "timestamp": at, **(who or {"user_id": "u01"})}
    assert (await client.post("/v1/events", json=event)).json()["accepted"] == 1


async def test_further_lists_are_those_of_a_new_user_also_after_a_restart(tmp_path: Path) -> None:
    options = tiny_options(tmp_path)
    async with door(options) as (_, client):
        nobody = await ids(client, "nobody")
        await bought(client, 1, "i100", AT)
        assert "i100" in await ids(client)
        reply = await client.request("DELETE", "/v1/users/u01")
        assert (reply.status_code, reply.json()) == (200, {"deleted": "u01", "known": None})
        assert await ids(client) == nobody
        assert await ids(client, "u02") != nobody
    async with door(options) as (_, client):
        assert await ids(client) == nobody


@pytest.mark.parametrize("how", ["the store is down", "the store was lost", "the book was lost"])
async def test_it_stays_so_whatever_is_lost(tmp_path: Path, how: str) -> None:
    options = tiny_options(tmp_path)
    async with door(options) as (_, client):
        await bought(client, 1, "i100", AT)
        await client.request("DELETE", "/v1/users/u01")
        nobody = await ids(client, "nobody")
    if how == "the store is down":
        (tmp_path / "file").write_text("")
        options = replace(options, state=f"sqlite:{tmp_path / 'file' / 'states'}")
    for file in (tmp_path / "events").glob(
        "states.sqlite*" if how == "the store was lost" else "deleted.*" if how != "the store is down" else "-"
    ):
        file.unlink()
    async with door(options) as (_, client):
        assert await ids(client) == nobody


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    """Options of a server whose states are in a file, or in a Redis that is empty."""
    if request.param == "sqlite":
        return tiny_options(tmp_path)
    import redis

    url = request.getfixturevalue("redis_url")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return tiny_options(tmp_path, state=url)


async def test_a_kill_between_the_log_and_the_book_leaves_no_half_of_a_deletion(where: Options, tmp_path: Path) -> None:
    """The log has the entry, the book of deleted users has not: the next start tells it, so it holds without the states as well."""
    async with door(where) as (_, client):
        await bought(client, 1, "i100", AT)
        nobody = await ids(client, "nobody")
        assert "i100" in await ids(client)
    with closing(SqliteLog(tmp_path / "events")) as log:
        log.append([Event(f"{ERASE}:1", ERASE, "u01", ERASE, datetime.fromisoformat(LATER))])
    async with door(where) as (_, client):
        assert await ids(client) == nobody
        assert await ids(client, "u02") != nobody
    (tmp_path / "file").write_text("")
    async with door(replace(where, state=f"sqlite:{tmp_path / 'file' / 'states'}")) as (_, client):
        assert await ids(client) == nobody
        assert await ids(client, "u02") != nobody


async def test_in_redis_it_holds_after_a_restart_and_on_another_machine(where: Options, tmp_path: Path) -> None:
    async with door(where) as (_, client):
        await bought(client, 1, "i100", AT)
        nobody = await ids(client, "nobody")
        await client.request("DELETE", "/v1/users/u01")
        await client.request("DELETE", "/v1/items/i002")
        assert (await ids(client))[:9] == [item for item in nobody if item != "i002"][:9]
    async with door(where) as (_, client):
        assert await ids(client) == await ids(client, "nobody")
        assert "i002" not in await ids(client, "u02", k=100)
    if where.state.startswith("sqlite") or not where.state:
        return
    elsewhere = DeletedUsers(Safety(tmp_path / "another machine", where.state, "deleted"))
    assert elsewhere.day("u01") is None
    elsewhere.share()
    assert elsewhere.day("u01") is not None
    items = Safety(tmp_path / "another machine", where.state)
    items.share()
    assert [(said.item_id, said.action, said.on) for said in items.book().values()] == [("i002", "delete", True)]


@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_deleted_after_it(where: Options) -> None:
    users = [f"u{number:02}" for number in range(11)]
    done: list[str] = []

    def delete(server: Running) -> None:
        with suppress(OSError, HTTPException):
            for user in users:
                assert server.ask("DELETE", f"/v1/users/{user}")[0] == 200
                done.append(user)

    def listed(server: Running, user: str) -> list[str]:
        answer = server.ask("POST", "/v1/recommendations", {"user_id": user})[1]
        return [item["item_id"] for item in answer["items"]]

    with running(where) as server:
        sender = threading.Thread(target=delete, args=(server,))
        sender.start()
        until(lambda: len(done) > 3, 30)
        server.kill()
        sender.join()
    with running(where) as server:
        nobody = listed(server, "nobody")
        assert {user: listed(server, user) for user in done} == dict.fromkeys(done, nobody)
        delete(server)  # sent again, it ends the same
        assert {user: listed(server, user) for user in users} == dict.fromkeys(users, nobody)


async def test_another_worker_uses_no_list_it_kept(tmp_path: Path) -> None:
    options = tiny_options(tmp_path)
    async with door(options) as (_, here), door(options) as (other, there):
        asked = RecommendationRequest("u01")
        await ids(there)
        late = await other.service.recommend(asked, 1e9)  # no time left: the list it kept
        assert late.degraded is not None
        assert late.degraded["rung"] == "cached"
        await here.request("DELETE", "/v1/users/u01")
        late = await other.service.recommend(asked, 1e9)
        assert late.degraded is not None
        assert late.degraded["rung"] in ("popular", "static")
        assert await ids(there) == await ids(there, "nobody")


async def test_what_comes_after_counts_and_what_comes_late_does_not(tmp_path: Path) -> None:
    async with door(tiny_options(tmp_path)) as (_, client):
        await client.request("DELETE", "/v1/users/u01")
        nobody = await ids(client, "nobody")
        await bought(client, 1, "i100", BEFORE)
        assert await ids(client) == nobody
        await bought(client, 2, "i150", LATER)
        assert "i150" in await ids(client)
        assert "i100" not in await ids(client)


async def test_what_a_user_consented_to_stays(tmp_path: Path) -> None:
    async with door(tiny_options(tmp_path)) as (made, client):
        await client.request("DELETE", "/v1/users/u11")
        assert made.service.states.read("u11").consent == "minimal"
        assert made.service.states.read("u11").is_unknown


async def test_a_session_is_forgotten(tmp_path: Path) -> None:
    async with door(tiny_options(tmp_path)) as (_, client):
        await bought(client, 1, "i100", AT, session_id="s / 1")
        await bought(client, 2, "i100", AT, user_id="s / 1")
        reply = await client.request("DELETE", "/v1/sessions/s%20%2F%201")
        assert reply.json()["deleted"] == "s / 1"
        listed = await client.post("/v1/recommendations", json={"session_id": "s / 1"})
        assert "i100" not in [item["item_id"] for item in listed.json()["items"]]
        assert "i100" in await ids(client, "s / 1")


async def test_a_deleted_item_is_in_no_list_until_it_is_lifted(tmp_path: Path) -> None:
    options = tiny_options(tmp_path)
    async with door(options) as (_, client):
        assert "i001" in await ids(client)
        assert (await client.request("DELETE", "/v1/items/i001")).json() == {"deleted": "i001", "known": True}
        assert (await client.request("DELETE", "/v1/items/never")).json() == {"deleted": "never", "known": False}
        assert "i001" not in await ids(client)
        await client.post("/v1/items", json={"items": [{"item_id": "i001"}]})
        assert "i001" not in await ids(client)
    async with door(options) as (_, client):
        assert "i001" not in await ids(client)
        await client.post("/v1/safety", json={"messages": [{"item_id": "i001", "action": "delete", "lift": True}]})
        assert "i001" in await ids(client)


@pytest.mark.parametrize("path", ["/v1/users/", "/v1/sessions/", "/v1/items/", f"/v1/users/{'u' * 257}", "/v1/users/%1F"])
async def test_what_is_no_id_is_refused(tmp_path: Path, path: str) -> None:
    async with door(tiny_options(tmp_path)) as (_, client):
        reply = await client.request("DELETE", path)
        assert reply.status_code == 422
        assert reply.json()["error"]["code"] == "bad_value"
        assert (await client.get("/v1/users/u01")).status_code == 405


async def test_with_the_log_gone_nobody_is_told_that_it_was_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = tiny_options(tmp_path, exposures=tmp_path / "exposures", state=f"sqlite:{tmp_path / 'states'}")
    async with door(replace(options, events=f"dir:{tmp_path / 'file'}")) as (_, client):
        assert (await client.request("DELETE", "/v1/users/u01")).status_code == 503


async def test_no_client_can_send_the_logs_own_entry(tmp_path: Path) -> None:
    async with door(tiny_options(tmp_path)) as (_, client):
        event = {"event_id": "e", "event_type": ERASE, "user_id": "u01", "item_id": "i001", "timestamp": AT}
        assert (await client.post("/v1/events", json=event)).status_code == 422


HAPPENED = st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(HAPPENED, st.integers(1, 6), st.booleans())
def test_a_state_is_what_came_after_the_last_deletion_however_it_is_folded(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[int, int, bool]], together: int, another_cut: bool
) -> None:
    """The slow reference folds what is of a later day than every deletion and stands behind the last one into a nobody's state."""
    events = [
        StateEvent(f"e{n}", "u01", ERASE if erased else f"i{item:03}", ERASE if erased else "purchase", DAY + day + n / 100)
        for n, (item, day, erased) in enumerate(happened)
    ]
    store, table = SqliteStore(tmp_path_factory.mktemp("states") / "s", 1), states()
    made = States(store, table, system().learning)
    for begin in range(0, len(events), together):
        made.apply(batch := events[begin : begin + together])
        made.apply([event for event in batch if event.kind == ERASE] or batch)  # again: changes nothing
    if another_cut:
        made = States(store, replace(table, cut_day=DAY + 0.5), system().learning)
    found = made.read("u01")
    last = max((n for n, event in enumerate(events) if event.kind == ERASE), default=-1)
    day = max((event.day for event in events if event.kind == ERASE), default=-np.inf)
    start = UserState("u01") if last >= 0 else table[1]
    counted = [event for event in events[last + 1 :] if event.day > day and event.day >= made.cut_day]
    expected = Fold(system().learning).of(start, counted)
    assert sorted(found.keys.tolist()) == sorted(expected.keys.tolist())
    assert np.allclose(found.decayed, expected.decayed)
    store.close()
