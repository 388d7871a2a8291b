"""The shop's features. One FeatureView more, in a service below, is all it takes to add what is known elsewhere: docs/changing.md.

All Feast objects are in this one file: Feast imports each file of a repo by itself and would meet shared objects twice.
"""

from feast import Entity, FeatureService, ValueType

from feature_repo.library import (
    count,
    count_in,
    days_since_first,
    days_since_last,
    due,
    gap_days,
    log_median,
    mean,
    mean_size,
    rebuy_gap_days,
    rebuy_rate,
    relative_price,
    share,
    share_in,
    total,
    trend,
)
from feature_repo.shop.own import planned
from feature_repo.views import computed

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)

user_stats = computed(
    "user_stats",
    user,
    (
        count("user_baskets_7", "session", days=7),
        count("user_baskets_28", "session", days=28),
        count("user_baskets_all", "session"),
        count("user_events_28", days=28),
        days_since_last("user_days_since_last"),
        gap_days("user_gap_days", "session"),
        due("user_due", "session"),
        mean_size("user_basket_size", "session"),
        count("user_items", "item_id"),
        count("user_categories", "type"),
        count("user_brands", "brand"),
        count("user_stores", "store"),
        share("user_repeat_share_28", "repeat", days=28),
        total("user_spend_28", "spend", days=28),
        mean("user_price", "price"),
        mean("user_promoted_share", "promoted"),
        days_since_first("user_tenure_days"),
    ),
)
item_stats = computed(
    "item_stats",
    item,
    (
        count("item_buyers_7", "user_id", days=7),
        count("item_buyers_14", "user_id", days=14),
        count("item_buyers_28", "user_id", days=28),
        count("item_buyers_all", "user_id"),
        count("item_events_7", days=7),
        count("item_events_14", days=14),
        count("item_events_28", days=28),
        count("item_events_all"),
        trend("item_trend", "user_id", short=7, long=28),
        rebuy_rate("item_rebuy_rate"),
        rebuy_gap_days("item_rebuy_gap_days"),
        days_since_last("item_days_since_last"),
        days_since_first("item_days_since_first"),
        log_median("item_price", "price"),
        relative_price("item_relative_price", "type"),
        count_in("item_department_28", "department", days=28),
        count_in("item_category_28", "category", days=28),
        count_in("item_type_28", "type", days=28),
        count_in("item_brand_28", "brand", days=28),
        share_in("item_type_share_28", "type", days=28),
        count("item_stores", "store"),
        mean("item_promoted_share", "promoted"),
        planned("item_planned_display", "display"),
        planned("item_planned_mailer", "mailer"),
    ),
)

users = FeatureService(name="users", features=[user_stats.view])  # what a request reads of its user
items = FeatureService(name="items", features=[item_stats.view])  # what a bundle holds of every item
