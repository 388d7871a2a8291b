"""A site that knows nobody: sessions along one of a few topics, with pages in between that every topic has; no user anywhere."""

from datetime import timedelta

import numpy as np

from tests.world.plain import END, Rows

TOPICS, PAGES, HUBS = 12, 8, 2


def news(days: int = 35, a_day: int = 40, seed: int = 0) -> Rows:
    """`a_day` sessions of 3 to 7 clicks. Each goes to one of the next two pages of its topic's ring, or every second time to one all have.

    After such a page the newest item says nothing of the topic; the session before it does.
    """
    random = np.random.default_rng(seed)
    rows: Rows = {"events": [], "items": []}
    names = [f"t{topic}p{page}" for topic in range(TOPICS) for page in range(PAGES)] + [f"h{hub}" for hub in range(HUBS)]
    for name in names:
        rows["items"].append({"item_id": name, "title": f"Page {name}"})
    for session in range(days * a_day):
        moment = END - timedelta(days=days) + timedelta(days=session / a_day)
        topic, page = random.integers(TOPICS), random.integers(PAGES)
        for step in range(random.integers(3, 8)):
            hub = step and random.random() < 1 / 2
            page = page if hub else (page + random.integers(1, 3)) % PAGES
            item = f"h{random.integers(HUBS)}" if hub else f"t{topic}p{page}"
            rows["events"].append(
                {"event_id": f"e{len(rows['events'])}", "event_type": "click", "session_id": f"s{session}", "item_id": item,
                 "timestamp": moment + timedelta(seconds=40 * step)}
            )  # fmt: skip
    rows["events"].sort(key=lambda event: (event["timestamp"], event["event_id"]))
    return rows
