"""The two inner servers of a split recommender: `retrieval` turns a question into candidates, `ranking` candidates into scores."""

from abc import ABC, abstractmethod
from typing import Any

from serving.bundle.bundle import OtherBundle
from serving.http.app import App, Reply, Route, Scope
from serving.http.auth import Guard
from serving.messages import WireProblem
from serving.recommender import Recommender
from serving.split import frames as wire
from serving.telemetry.metrics import Metrics

_FRAME = b"application/octet-stream"


class StageServer(App, ABC):
    """A server that speaks the binary protocol. 409: the frame is for another bundle; 422: it is not a message."""

    max_body = wire.MAX_FRAME
    path: str

    def __init__(self, recommender: Recommender, metrics: Metrics, guard: Guard, log: Any) -> None:
        super().__init__(metrics, guard, log)
        self.recommender, self.digest, self.shape = recommender, recommender.bundle.digest, wire.Shape.of(recommender)
        self.routes[self.path] = Route("POST", "recommend", self.handle)

    @abstractmethod
    def answer(self, frame: bytes) -> wire.Frame:
        """The reply to one frame. Raises `OtherBundle`, or `ValueError` when it cannot be read."""

    async def handle(self, _: Scope, body: bytes) -> Reply:
        try:
            return 200, _FRAME, b"".join(self.answer(body).parts)
        except OtherBundle as error:
            raise WireProblem(409, "other_bundle", str(error)) from None
        except ValueError as error:  # a frame that reads well may still not fit the models; they say how
            raise WireProblem(422, "bad_frame", str(error)) from None


class RetrievalServer(StageServer):
    """`POST /v1/retrieve`: a question in, its candidates out."""

    path = "/v1/retrieve"

    def answer(self, frame: bytes) -> wire.Frame:
        asked = wire.read_retrieve(frame, self.digest, self.shape)
        return wire.candidates_frame(self.digest, self.recommender.retrieve(asked.query(self.recommender), asked.side))


class RankingServer(StageServer):
    """`POST /v1/rank`: a question and its candidates in, the scores out."""

    path = "/v1/rank"

    def answer(self, frame: bytes) -> wire.Frame:
        asked, pool = wire.read_rank(frame, self.digest, self.shape)
        return wire.scores_frame(self.digest, self.recommender.scoring.rank(asked.query(self.recommender), asked.side, pool))
