"""What was left out of the tables though nothing is wrong with it, and what to do about it: a sentence each."""

from collections.abc import Mapping
from typing import Any

from components.data.rows import AGAIN, AHEAD, NO_CONSENT, NOBODY

_NEXT = {
    AGAIN: "are the same row again (delivered twice): counted once",
    AHEAD: "lie ahead of now: set aside, the cut does not follow them; correct the clock that wrote them",
    NOBODY: "name a session but no user, as others do: not learnt from",
    NO_CONSENT: "are of users who consent to minimal use: not learnt from, kept nowhere",
    "item_id: not in items": "are of items that the table items does not hold (withdrawn?): learnt without them;"
    " to learn from them too, keep the items in the table with policy_flags 'blocked'",
    "user_id: not in users": "are of users that the table users does not hold: learnt without them; add the users to learn from them too",
}


def notes_of(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each reason of each table that is in the report of `validate`."""
    return [
        f"{count:,} of {table['rows_in']:,} rows of {name} {_NEXT[reason]}."
        for name, table in tables.items()
        for reason, count in table["reasons"].items()
        if reason in _NEXT
    ]
