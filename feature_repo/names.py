"""The features by name, in their order: what Feast registers, training reads and the server expects.

A plain list, so that the server may import it without Feast or Ibis. `feature_repo/expressions.py` holds their definitions.
"""

from collections.abc import Sequence

USER_FEATURES: tuple[str, ...] = (
    "user_baskets_7",  # log1p of visits in the last 7 days
    "user_baskets_28",
    "user_baskets_all",
    "user_events_28",  # log1p of positive events in the last 28 days
    "user_days_since_last",  # days since the last visit
    "user_gap_days",  # mean days between visits
    "user_due",  # log1p of days since the last visit / mean gap
    "user_basket_size",  # positive events a visit
    "user_items",  # log1p of distinct items
    "user_categories",  # log1p of distinct categories, narrowest level
    "user_brands",  # log1p of distinct brands
    "user_stores",  # log1p of distinct stores
    "user_repeat_share_28",  # share of the last 28 days' events whose item the user had before
    "user_spend_28",  # log1p of value x price in the last 28 days
    "user_price",  # mean unit price
    "user_promoted_share",  # share of events under a planned display or mailer
    "user_tenure_days",  # days since the first event
)

ITEM_FEATURES: tuple[str, ...] = (
    "item_buyers_7",  # log1p of distinct users in the last 7 days
    "item_buyers_14",
    "item_buyers_28",
    "item_buyers_all",
    "item_events_7",  # log1p of positive events
    "item_events_14",
    "item_events_28",
    "item_events_all",
    "item_trend",  # log1p(4 x buyers of 7 days) - log1p(buyers of 28 days)
    "item_rebuy_rate",  # users with two or more events / users
    "item_rebuy_gap_days",  # mean days between one user's events
    "item_days_since_last",
    "item_days_since_first",
    "item_price",  # log1p of the median unit price
    "item_relative_price",  # log of median unit price / median of those of its narrowest category
    "item_department_28",  # log1p of positive events in its widest category, last 28 days
    "item_category_28",  # the same in the level below
    "item_type_28",  # the same in the narrowest level
    "item_brand_28",  # the same in its brand
    "item_type_share_28",  # its own share of the narrowest category's events, last 28 days
    "item_stores",  # log1p of distinct stores
    "item_promoted_share",  # share of events under a planned display or mailer
    "item_planned_display",  # share of places that plan a display for it at the cut
    "item_planned_mailer",  # share of places that plan a mailer for it at the cut
)

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


def cross_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of `cross_features`, for a system with these kinds of sources, in its file's order."""
    return (*CROSS_FEATURES, *(f"{part}_{kind}" for part in ("score", "relative", "rank") for kind in kinds))
