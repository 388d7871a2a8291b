"""The sentences that more than one source says of an item, each only where it is true; empty where it is not.

All take the question and the item's row. What is said of one kind of source alone stands in its module.
"""

import numpy as np
from numpy.typing import NDArray

from serving.query import Query

_LOOKED = {"add_to_cart": "put it in your cart", "like": "liked it"}  # what is said of a session's event; else "looked at it"


def had(query: Query, row: int) -> str:
    """How often the user had it, and when last."""
    return of_history(query, query.history.position_of(row))


def of_history(query: Query, at: int) -> str:
    """The same of the item at a place in the history; empty for -1."""
    if at < 0:
        return ""
    count, when = round(query.history.counts.item(at)), ago(query.history.age.item(at))
    return f"You {query.verb} it {when}" if count <= 1 else f"You {query.verb} it {count} times, last {when}"


def looked(query: Query, row: int) -> str:
    """What of the present session was about this item, or else about its category or brand: the heaviest such event."""
    rows, weights = query.session
    if not len(rows):
        return ""
    own = rows == row
    if own.any():
        return f"You {_event(query, row)} {ago(_age(query, row))}"
    catalogue = query.catalogue
    for of in (catalogue.category[:, 2], catalogue.brand):
        alike = (of[rows] == of[row]) & (of[row] > 0)
        if alike.any():
            nearest = int(rows[np.argmax(np.where(alike, weights, -1))])
            return f"Like {catalogue.readable_title(nearest)}, which you looked at {ago(_age(query, nearest))}"
    return ""


def planned(query: Query, row: int) -> str:
    """What the user's own store plans for it this week."""
    catalogue, place = query.catalogue, query.place
    period = catalogue.plan_at(query.request.at_day)
    if period < 0 or place < 0:
        return ""
    if catalogue.plan_mailer[period, place, row]:
        return "In the mailer at your store this week"
    return "On display at your store this week" if catalogue.plan_display[period, place, row] else ""


def like_usual(query: Query, row: int) -> str:
    """The category, where the user has had something of it."""
    category = query.catalogue.readable_category(row)
    usual = query.once("categories", lambda: frozenset(query.catalogue.category[query.history_rows, 1].tolist()))
    return (
        f"Like what you usually {present(query.verb)} in {category}" if category and int(query.catalogue.category[row, 1]) in usual else ""
    )


def ago(days: float) -> str:
    """An age in days in words."""
    return "today" if days < 1 else "yesterday" if days < 2 else f"{int(days)} days ago"


def present(verb: str) -> str:
    """bought -> buy; a verb not in the list stays as it is."""
    return {"bought": "buy", "watched": "watch", "chose": "choose", "read": "read", "played": "play"}.get(verb, verb)


def _event(query: Query, row: int) -> str:
    """The last thing the session did with an item, in words."""
    state, events = query.state, _events(query, row)
    last = events[np.argmax(state.session_days[events])]
    return _LOOKED.get(query.learning.type_of_code.get(int(state.session_types[last]), ""), "looked at it")


def _age(query: Query, row: int) -> float:
    """Days since the session's last event on an item."""
    return max(query.request.at_day - float(query.state.session_days[_events(query, row)].max()), 0.0)


def _events(query: Query, row: int) -> NDArray[np.intp]:
    """Positions of the session's events on an item that speak for it."""
    state, counted = query.state, list(query.learning.weight_of_code)
    return np.flatnonzero((state.session_keys == query.catalogue.keys[row]) & np.isin(state.session_types, counted))
