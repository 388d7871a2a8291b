"""A release as a policy, without a server: the whole recommender, or one of its sources alone under the same rules.

It knows the users as they were at the release's cut; what they do since reaches only a server (`remote.py`).
"""

from dataclasses import dataclass, field

import numpy as np

from components.data.video.live import World
from components.data.video.pages import ANSWER, PageRequests, Slates
from components.data.video.tables import START
from components.evaluation.batch import open_recommender
from components.release.releases import ReleasedBundle
from feature_repo.schema import SECONDS_A_DAY
from serving.query import Request
from serving.recommender import Recommender
from serving.rules.slate import Ranked
from serving.state.user_state import StateTable, UserState
from serving.system import System

FIRST_DAY = START.timestamp() / SECONDS_A_DAY  # the world's day 0 in days since 1970


@dataclass(frozen=True)
class FromBundle:
    """Answers from a bundle; `alone`: the kind of the one source that is asked, in its own order; empty: all, fused and ranked."""

    world: World
    recommender: Recommender = field(repr=False)
    states: StateTable = field(repr=False)
    alone: str = ""

    @classmethod
    def opened(cls, world: World, system: System, found: ReleasedBundle, alone: str = "") -> "FromBundle":
        """Of the bundle and the states that answer now."""
        return cls(world, open_recommender(system, found.bundle), StateTable.load(found.users), alone)

    def __call__(self, visits: PageRequests) -> Slates:
        rows = np.full((len(visits), ANSWER), -1, np.int32)
        for s in range(len(visits)):
            found = self._answered(self.world.crowd.user_id(visits.user[s]), FIRST_DAY + float(visits.day[s]))[:ANSWER]
            rows[s, : len(found)] = [int(item_id[1:]) for item_id in found]
        return Slates(rows)

    def _answered(self, user: str, day: float) -> list[str]:
        """The ids of the list, best first."""
        index = self.states.index(user)
        state = self.states[index] if index >= 0 else UserState(user)
        recommender, request = self.recommender, Request(user, ANSWER, day)
        if not self.alone:
            return [item.item_id for item in recommender.recommend(request, state).items]
        query = recommender.query(request, state)
        vector = recommender.user_side(query).vector
        source = next(source for source in recommender.sources if source.spec.kind == self.alone)
        hits = source.retrieve(query, recommender.system.pool_size, vector if len(vector) else None)
        ranked = Ranked(hits.rows, hits.scores, np.isin(hits.rows, query.history_rows))
        return [item_id.decode() for item_id in recommender.catalogue.item_ids[recommender.arrange(query, ranked).rows].tolist()]
