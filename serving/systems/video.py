"""The video home page: twenty videos the user has not watched, learnt from how long others were watched, on a made platform."""

from serving.event_meanings import Follow, Ignored, Positive, Signal
from serving.networks import Compression, Network
from serving.objectives import DiversityTerm, Objective
from serving.retrieval.category_promotion import category_promotion
from serving.retrieval.followed import followed
from serving.retrieval.linear import linear
from serving.retrieval.trending import trending
from serving.retrieval.two_tower import two_tower
from serving.rules.specs import allowed, at_least, at_most, not_recalled, not_seen
from serving.system import Budget, Learning, System

VIDEO = System(
    name="video",
    answer_size=20,
    pool_size=1000,
    light_size=200,
    sources=(
        linear(share=0.4, weight=0.2),  # collaborative
        two_tower(share=0.15, weight=0.15),  # content: the item tower reads it
        category_promotion(share=0.15, weight=0.1),  # content: topics and channels
        trending(days=7, tau_days=2, velocity=True, smoothing=20, share=0.2, weight=0.3, offset=20),  # what newcomers are shown by
        followed(days=14, share=0.1, weight=0.2),  # uploads of the channels subscribed to
    ),
    objectives={
        "watch": Objective("watch", 0.5, loss="weighted", usual=240, listwise=0.3, loss_weight=0.5),
        "click": Objective("click", 0.2, loss_weight=0.2),
        "satisfaction": Objective("like or share or survey >= 4", 0.2, loss_weight=0.2),
    },
    rules=(
        not_seen(),
        not_recalled(),
        allowed(flag="adult"),
        allowed(flag="blocked"),
        at_most(2, per="brand"),
        at_most(5, per="category"),
        at_least(3, newer_than_days=1),
    ),
    budget=Budget(total_ms=200, features_ms=10, retrieval_ms=60, models_ms=100, rules_ms=20),
    learning=Learning(
        horizon_days=2,
        every_days=2,
        cuts=6,
        cross=("serving.ranking.lately:hours_old", "serving.ranking.lately:from_followed"),
        heavy=Network((512, 256), towers=(512, 256), context=(128, 64), dropout=0.3),
        diversity=DiversityTerm(0.1, per="category"),
        compression=Compression(
            ("int8", "pruned", "pruned+int8", "student", "student+int8", "student+pruned", "student+pruned+int8"),
            judged=600,
            taught=1000,
            lost=0.02,
            overlap=0.0,
        ),
    ),
    events={
        "watch": Positive(value="seconds", at_least=30, usual=240),
        "like": Signal(1.0),
        "share": Signal(1.0),
        "subscribe": Follow(),
        "comment": Signal(0.6),
        "click": Signal(0.3),
        "video_view": Signal(0.3),
        "survey": Ignored(),
    },
    feature_repo="feature_repo/video",
    ingest="components.data.video_world:ingest",
    noun="video",
    verb="watched",
)
