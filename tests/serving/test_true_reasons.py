"""Through the door: what was clicked moves up and says so, and every sentence names what `/why` says moved its item most."""

from typing import Any

import httpx

from tests.serving.tiny_bundle import BRANDS, CATEGORIES, USERS

PLACES = (1, 4, 9)  # in the list, of the item that is clicked
KNOWN = [(f"u{number:02}", PLACES[number % len(PLACES)]) for number in range(USERS - 1)]  # the last one's consent is minimal


async def listed(client: httpx.AsyncClient, user: str) -> list[dict[str, Any]]:
    """A list, each item with its `parts`: what moved it, as `/why` has it."""
    for _ in range(20):  # a busy machine answers from a lower rung now and then
        answer = (await client.post("/v1/recommendations", json={"user_id": user})).json()
        if answer["degraded"] is None:
            break
    assert answer["degraded"] is None
    told = (await client.get(f"/v1/why/{answer['request_id']}")).json()
    assert [one["item_id"] for one in told["items"]] == [one["item_id"] for one in answer["items"]]
    return [item | {"parts": one["ranker"]} for item, one in zip(answer["items"], told["items"], strict=True)]


async def clicked(client: httpx.AsyncClient, user: str, place: int) -> tuple[str, list[str], list[dict[str, Any]]]:
    """The item at a place of the user's list, that list, and the next one after a click on the item."""
    before = [one["item_id"] for one in await listed(client, user)]
    click = {"event_id": user, "event_type": "click", "user_id": user, "item_id": before[place], "timestamp": "2024-10-04T12:00:00Z"}
    assert (await client.post("/v1/events", json=click)).json()["accepted"] == 1
    return before[place], before, await listed(client, user)


async def test_what_was_clicked_stands_before_its_like_and_every_sentence_is_of_what_moved_its_item_most(client: httpx.AsyncClient) -> None:
    for user, place in KNOWN:
        item, before, after = await clicked(client, user, place)
        names = [one["item_id"] for one in after]
        assert names.index(item) <= before.index(item)
        alike = [name for name in names if had(user, name) == had(user, item)]  # what was had before is worth more by the system's aims
        assert alike[0] == item
        for shown in after:
            said_truly(shown, user, item)


async def test_a_newcomer_s_click_is_named_and_speaks_for_what_goes_with_it(client: httpx.AsyncClient) -> None:
    for place in PLACES:
        user = f"stranger {place}"
        item, before, after = await clicked(client, user, place)
        assert [one["item_id"] for one in after].index(item) <= before.index(item)
        for shown in after:
            said_truly(shown, user, item)


def had(user: str, item: str) -> bool:
    """Whether the user bought it: three items each, twelve apart."""
    return user.startswith("u") and int(item[1:]) in range(int(user[1:]), 36, CATEGORIES)


def said_truly(shown: dict[str, Any], user: str, clicked: str) -> None:
    """The sentence is of the greatest part that moved the item up and of which something can be said."""
    ways = sorted((part for part, added in shown["parts"].items() if added > 0), key=lambda part: -shown["parts"][part])
    ways = [part for part in ways if part != "item"]  # its own half: nobody did anything for that
    begins = [begin for part in ways if (begin := beginning(part, shown["item_id"], user, clicked))]
    if begins:
        assert shown["reason"].startswith(begins[0]), shown
    if shown["item_id"] == clicked:
        assert (ways[0], shown["reason"]) == ("session", "You looked at it today")


def beginning(part: str, item: str, user: str, clicked: str) -> str | tuple[str, ...]:
    """How a sentence of this part begins in the tiny world; empty where there is none."""
    number, of = int(item[1:]), int(clicked[1:])
    if part == "session":
        alike = number % (2 * CATEGORIES) == of % (2 * CATEGORIES) or (number % BRANDS == of % BRANDS and number % BRANDS > 0)
        return "You looked at it today" if item == clicked else f"Like Thing {of}, which you looked at" if alike else ""
    assert part == "sources", "the tiny rankers read nothing else"
    return "You bought it" if had(user, item) else ("Often bought with Thing", "Popular")
