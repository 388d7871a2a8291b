"""The features that are the same for every system, by name and in their order: of a request, and of a user and a candidate together.

Those of users and of items are a system's own: its Feast services name them (`feature_repo/<system>/features.py`), its bundle keeps them.
"""

from collections.abc import Sequence

REQUEST_FEATURES = (
    "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "place_known", "log_history_items", "log_history_events",
    "log_recent_events", "log_days_since_last", "log_session_events", "log_account_days",
)  # fmt: skip

TAUS_DAYS = (15.0, 30.0, 60.0, 150.0)  # the decays that carried the repeat head's gain

OWN_FEATURES = (
    *(f"own_decayed_{int(tau)}" for tau in TAUS_DAYS),
    "own_log_count", "own_log_days_since_last", "own_log_mean_gap", "own_due", "own_once", "seen",
)  # fmt: skip

AFFINITY_FEATURES = (
    "share_category_2", "recent_category_2", "log_items_category_2", "share_category_1", "recent_category_1", "log_items_category_1",
    "share_category_0", "log_events_category_2", "log_days_since_category_2", "due_category_2",
    "share_brand", "brand_within_category", "price_relative", "price_known",
)  # fmt: skip

PLAN_FEATURES = ("display_here", "mailer_here")  # elsewhere: item features

SESSION_FEATURES = ("session_item", "session_category_2", "session_brand")

FUSION_FEATURES = ("fused", "fused_relative", "sources")

CROSS_FEATURES = (*OWN_FEATURES, *AFFINITY_FEATURES, *PLAN_FEATURES, *SESSION_FEATURES, *FUSION_FEATURES)


def request_names(user_features: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the columns of `request_features`, for a system whose user features are these."""
    return (*REQUEST_FEATURES, *user_features)


def cross_names(kinds: Sequence[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the columns of `cross_features`, for a system with these kinds of sources, in its file's order.

    `own`: the "module:function" of each cross feature that the system names itself; they come last.
    """
    of_sources = (f"{part}_{kind}" for part in ("score", "relative", "rank") for kind in kinds)
    return (*CROSS_FEATURES, *of_sources, *(path.rpartition(":")[2] for path in own))
