"""The features by name, in their order: what Feast registers, training reads and the server expects.

A plain list, so that the server may import it without Feast or Ibis. `feature_repo/expressions.py` holds their definitions.
"""

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
