"""What the world sends is what the wire takes."""

import json

import msgspec

from components.data.video.remote import as_posted, as_sent
from components.data.video_world import Size, Usual, World, events_table, items_table
from feature_repo.schema import EVENT_TYPES
from serving import messages


def test_every_event_is_as_the_wire_has_it() -> None:
    """Of the schema's types, by the wire's own decoder."""
    world = World(Size(users=200, channels=30, videos=300, days=2, ahead_days=1))
    rows = events_table(world, world.step(Usual(world), hours=24).pages).to_pylist()
    sent = [as_sent(row) for row in rows if row["event_type"] in EVENT_TYPES]
    taken = [msgspec.convert(one, messages.Event, strict=False) for one in json.loads(json.dumps(sent))]
    assert len(taken) > 100
    for row, event in zip((row for row in rows if row["event_type"] in EVENT_TYPES), taken, strict=True):
        assert (event.user_id, event.item_id, event.timestamp, event.value) == (
            row["user_id"],
            row["item_id"],
            row["timestamp"],
            row["value"],
        )
        assert (event.context.page, event.context.position) == (row["context_page"], row["context_position"])


def test_every_video_can_be_posted_as_it_stands_in_the_table() -> None:
    world = World(Size(users=20, channels=30, videos=1500, days=2, ahead_days=1))
    rows = items_table(world.library, 0, len(world.library)).to_pylist()
    taken = messages.decode(messages.item_batch, json.dumps({"items": [as_posted(row) for row in rows[:1000]]}).encode()).items
    assert [item.item_id for item in taken] == [row["item_id"] for row in rows[:1000]]
    assert any(item.policy_flags for item in taken)
    assert all(item.created_at == row["created_at"] for item, row in zip(taken, rows, strict=False))
