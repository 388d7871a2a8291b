"""Small cuts written by hand: a few users, items and events, as the features stage would leave them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.cut import Cut
from serving.bundle.catalogue import Catalogue, item_key
from serving.query import Query, Request
from serving.state.user_state import StateTable, UserState
from serving.system import Learning

CUT_DAY = 100.0
Event = tuple[str, str, float]  # user, item, day


def catalogue(item_ids: Sequence[str], category: np.ndarray | None = None, places: tuple[str, ...] = (), **more: object) -> Catalogue:
    """Items in the order of their ids; every item of one category unless codes (I, 3) are given. `more` replaces any array."""
    ids = sorted(item.encode() for item in item_ids)
    keys = np.array([item_key(item.decode()) for item in ids], np.uint64)
    codes = np.zeros((len(ids), 3), np.int32) if category is None else category.astype(np.int32)
    titles = [b"Item " + item for item in ids]
    values: dict[str, object] = {
        "item_ids": np.array(ids),
        "keys": keys,
        "key_order": np.argsort(keys).astype(np.int32),
        "category": codes,
        "brand": np.zeros(len(ids), np.int32),
        "created_day": np.zeros(len(ids)),
        "price": np.full(len(ids), 2.0, np.float32),
        "flags": np.zeros(len(ids), np.uint8),
        "title_bytes": np.frombuffer(b"".join(titles), np.uint8),
        "title_ends": np.cumsum([len(title) for title in titles]),
        "features": np.zeros((len(ids), 1), np.float32),
        "plan_display": np.zeros((1, len(places), len(ids)), np.uint8),
        "plan_mailer": np.zeros((1, len(places), len(ids)), np.uint8),
        "plan_from": np.array([CUT_DAY]),
        "plan_until": np.array([CUT_DAY + 7]),
        "feature_names": ("nothing",),
        "category_names": ("unknown", *(f"Part > Shelf > Kind {code}" for code in range(1, int(codes.max(initial=0)) + 1))),
        "brand_names": ("unknown",),
        "places": places,
        "display_codes": ("", "A"),
        "mailer_codes": ("", "A"),
        "cut_day": CUT_DAY,
    }
    return Catalogue(**(values | more))  # type: ignore[arg-type]


def states(events: Sequence[Event], users: Sequence[str], place: str = "", region: str = "") -> StateTable:
    """Every user's state at the cut, folded event by event."""
    names = sorted(users)
    each = []
    for name in names:
        state = UserState(name)
        for _, item, day in (event for event in events if event[0] == name):
            state = state.with_positive(item_key(item), day)
        each.append(state)
    return StateTable(
        user_ids=np.array([name.encode() for name in names]),
        ends=np.cumsum([len(state.keys) for state in each]),
        keys=np.concatenate([state.keys for state in each]),
        first_day=np.concatenate([state.first_day for state in each]),
        last_day=np.concatenate([state.last_day for state in each]),
        counts=np.concatenate([state.counts for state in each]),
        decayed=np.concatenate([state.decayed for state in each]),
        features=np.zeros((len(names), 2), np.float32),
        place=np.array([place.encode()] * len(names)),
        region=np.array([region.encode()] * len(names)),
        consent=np.array([b"full"] * len(names)),
        created_day=np.zeros(len(names)),
        feature_names=("one", "two"),
        cut_day=CUT_DAY,
    )


def cut(events: Sequence[Event], items: Catalogue, users: Sequence[str] = (), **more: str) -> Cut:
    """A cut in memory."""
    names = sorted({event[0] for event in events} | set(users))
    return Cut("cut", Path("nowhere"), items, states(events, names, **more))


def checkerboard(size: int) -> list[Event]:
    """User u had every second item of u's own colour except item u itself: only item u is left to find.

    With size 6: user 0 had 2 and 4, user 1 had 3 and 5, user 2 had 0 and 4, …
    """
    return [(f"{u:02d}", f"{i:02d}", CUT_DAY - 1) for u in range(size) for i in range(u % 2, size, 2) if i != u]


def query(state: UserState, items: Catalogue, **asked: object) -> Query:
    """A question at the cut."""
    return Query(Request(state.user_id, 10, CUT_DAY, **asked), state, items, Learning())  # type: ignore[arg-type]


def clicked(state: UserState, item: str) -> UserState:
    """The state after a click now."""
    return state.with_session_event(item_key(item), "click", CUT_DAY)
