"""The tiny world after its tables end: what the same users do in the weeks that follow, with their tastes as they were or jumped.

A jump: every user takes over the next group's categories, with staples of it. Events are as the wire wants them, oldest first.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from tests.world.generate import (
    CATEGORIES,
    DISCOVERIES_A_VISIT,
    GROUPS,
    NOISE,
    PLACES,
    START,
    STRANGERS,
    _favourites,
    _staples,
    _stock,
    item_name,
    user_name,
)

Event = dict[str, Any]


def later_events(
    first_week: int, weeks: int, jump: int = 0, seed: int = 0, users: int = 60, items: int = 120, told: int = 12
) -> list[Event]:
    """Purchases of `weeks` weeks from week `first_week` on; `jump`: by how many groups tastes have moved. `told`: weeks of the tables."""
    random = np.random.default_rng(seed)
    shelf = _stock(random, items // CATEGORIES, told)  # the tables' own: the first that is drawn from their seed
    gone = np.array(shelf.flags) != ""
    shelf = replace(shelf, leaves=np.where(gone, shelf.leaves, np.inf))
    chance = np.random.default_rng((seed, first_week, jump))
    rows = []
    for user in range(users - STRANGERS):
        group = (user + jump) % GROUPS
        staples = _staples(np.random.default_rng((seed, user, jump)), shelf, group)
        cycle, day = chance.choice([3.0, 4.0, 6.0], len(staples)), first_week * 7 + float(chance.uniform(0, 3))
        due = chance.uniform(0, 4, len(staples)) + first_week * 7
        while day < (first_week + weeks) * 7:
            bought = [item for item, at in zip(staples, due, strict=True) if at <= day]
            due = np.where(due <= day, day + cycle, due)
            likes = np.isin(shelf.category, _favourites(group))
            for _ in range(chance.poisson(DISCOVERIES_A_VISIT)):
                weight = shelf.appeal * (likes if chance.random() >= NOISE else ~likes) * ((shelf.enters <= day) & (day < shelf.leaves))
                bought.append(int(chance.choice(len(weight), p=weight / weight.sum())))
            rows += [(day, user, item) for item in dict.fromkeys(bought)]
            day += float(chance.uniform(2, 4))
    return [_event(number, *row, first_week) for number, row in enumerate(sorted(rows))]


def _event(number: int, day: float, user: int, item: int, week: int) -> Event:
    return {
        "event_id": f"later {week}.{number}",
        "event_type": "purchase",
        "user_id": user_name(user),
        "item_id": item_name(item),
        "timestamp": moment(day).isoformat(),
        "value": float(1 + number % 3),  # both as in the tables: tastes alone have moved
        "price": round(1.0 + 0.1 * (item % 7), 2),
        "device_type": "store",
        "context": {"store": PLACES[user % len(PLACES)], "region": ("left", "right")[user % 2]},
    }


def moment(day: float) -> datetime:
    """Of a day since the world's first."""
    return START + timedelta(seconds=round(day * 86_400))
