"""A running server and a release as policies: what they list is what the world meets, and what happens is told."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.data.video.bundled import FromBundle
from components.data.video.live import ShownPage
from components.data.video.remote import OverHttp, RefusedByServer
from components.data.video_world import Size, World
from serving.events.sqlite import read_log
from serving.recommender import Recommender
from tests.serving import tiny_bundle
from tests.serving.servers import running, tiny_options

SMALL = Size(users=250, channels=10, videos=tiny_bundle.ITEMS, days=2, ahead_days=1)  # the rows are the tiny catalogue's numbers
OWN = """learning=Learning(), events={"watch": Positive(value="seconds"), "subscribe": Signal(0.5), "share": Ignored(),
    "comment": Ignored(), "survey": Ignored()},"""


def late(world: World) -> World:
    """When all of its videos are there."""
    world.day = float(SMALL.days)
    return world


def test_a_server_is_asked_for_every_page_told_of_every_event_and_what_it_refuses_is_raised(tmp_path: Path) -> None:
    system = tmp_path / "tiny_video.py"
    text = tiny_bundle.SYSTEM_FILE.read_text().replace("learning=Learning(),", OWN)
    system.write_text("from serving.event_meanings import Ignored, Positive, Signal\n" + text)
    world, pages = late(World(SMALL)), list[ShownPage]()
    with running(tiny_options(tmp_path, system=str(system))) as server:
        remote = OverHttp(world, f"http://127.0.0.1:{server.port}", uploaded=world.there)

        def heard(page: ShownPage) -> None:
            pages.append(page)
            remote.tell(page)

        step = world.step(remote, hours=12, heard=heard)
        ahead = replace(pages[1], visits=replace(pages[1].visits, day=pages[1].visits.day + 5_000))
        with pytest.raises(RefusedByServer, match=r"refused .* events, the first for: .* is ahead of the server's clock"):
            remote.tell(ahead)
        remote.close()
    asked = [request for page in pages if page.number for request in page.slates.request_ids]
    assert len(asked) == len(set(asked)) == sum(len(page.session) for page in pages if page.number) > 20
    assert all((page.slates.rows >= 0).all() for page in pages if page.number)
    kept = [event for _, event in read_log(tmp_path / "events")]
    found = Counter(event.event_type for event in kept)
    assert found["watch"] == step.clicks.sum()
    assert found["impression"] == step.impressions.sum()
    assert {event.context.request_id for event in kept if event.event_type == "impression"} <= set(asked)


def test_a_release_answers_whole_or_one_of_its_sources_alone(tmp_path: Path) -> None:
    world = late(World(SMALL))
    recommender = Recommender(tiny_bundle.load_tiny(tmp_path), tiny_bundle.system())
    states = tiny_bundle.states()
    states = replace(states, user_ids=np.array([world.crowd.user_id(user) for user in range(len(states.user_ids))], np.bytes_))
    visits = world.visits(24.0)
    visits = visits[visits.user < len(states.user_ids)]
    whole = FromBundle(world, recommender, states)(visits).rows
    alone = FromBundle(world, recommender, states, "trending")(visits).rows
    for rows in (whole, alone):
        assert rows.shape == (len(visits), 20)
        assert all(len(set(row)) == 20 for row in rows.tolist())
    assert not (recommender.catalogue.flags[whole] > 0).any()
    assert whole.tolist() != alone.tolist()
