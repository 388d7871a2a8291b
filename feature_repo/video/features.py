"""The video platform's features: what a user has watched of late, what a video and its channel were watched.

All Feast objects are in this one file: Feast imports each file of a repo by itself and would meet shared objects twice.
"""

from feast import Entity, FeatureService, ValueType

from feature_repo.library import (
    count,
    count_in,
    days_since_first,
    days_since_last,
    gap_days,
    mean_size,
    share_in,
    trend,
)
from feature_repo.views import computed

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)

user_stats = computed(
    "user_stats",
    user,
    (
        count("user_visits_1", "session", days=1),
        count("user_visits_7", "session", days=7),
        count("user_visits_28", "session", days=28),
        count("user_watched_7", days=7),
        count("user_watched_28", days=28),
        days_since_last("user_days_since_last"),
        gap_days("user_gap_days", "session"),
        mean_size("user_visit_size", "session"),
        count("user_departments", "department"),
        count("user_topics", "category"),
        count("user_channels", "brand"),
        days_since_first("user_tenure_days"),
    ),
)
item_stats = computed(
    "item_stats",
    item,
    (
        count("item_viewers_1", "user_id", days=1),
        count("item_viewers_3", "user_id", days=3),
        count("item_viewers_7", "user_id", days=7),
        count("item_viewers_28", "user_id", days=28),
        trend("item_velocity", "user_id", short=1, long=7),
        days_since_last("item_days_since_last"),
        days_since_first("item_days_since_first"),
        count_in("item_department_7", "department", days=7),
        count_in("item_topic_7", "category", days=7),
        count_in("item_channel_7", "brand", days=7),
        count_in("item_channel_28", "brand", days=28),
        share_in("item_channel_share_28", "brand", days=28),
    ),
)

users = FeatureService(name="users", features=[user_stats.view])  # what a request reads of its user
items = FeatureService(name="items", features=[item_stats.view])  # what a bundle holds of every item
