"""The video platform's features: what a user watches and does of late, what a video and its channel are and bring.

All Feast objects are in this one file: Feast imports each file of a repo by itself and would meet shared objects twice.
"""

from feast import Entity, FeatureService, ValueType

from feature_repo.library import (
    attribute,
    count,
    count_in,
    days_old,
    days_since_first,
    days_since_last,
    gap_days,
    happened,
    having,
    mean_attribute,
    mean_size,
    rate,
    share_having,
    share_in,
    share_of_events,
    time_of_day,
    trend,
    value_rate,
)
from feature_repo.views import computed

LANGUAGES = ("en", "de", "fr", "pt", "ja")

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
        happened("user_searches", "video_view"),
        happened("user_searches_1", "video_view", days=1),
        happened("user_likes", "like"),
        happened("user_subscriptions", "subscribe"),
        rate("user_click_rate", "click", "impression", usual=0.1),
        value_rate("user_seconds_a_watch", "watch", "watch", usual=200, weight=5),
        mean_attribute("user_length", "duration_seconds"),
        time_of_day("user_hour_sin", "sin"),  # beside the hour of the question: is it when the user usually watches?
        time_of_day("user_hour_cos", "cos"),
        share_of_events("user_on_tv", "device_type", "tv"),
        share_of_events("user_on_mobile", "device_type", "mobile"),
        *(share_having(f"user_in_{language}", "language", language) for language in LANGUAGES),
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
        days_old("item_days_old"),
        happened("item_shown_3", "impression", days=3),
        rate("item_click_rate", "click", "impression", usual=0.09),
        rate("item_click_rate_3", "click", "impression", usual=0.09, days=3),
        value_rate("item_seconds_shown", "watch", "impression", usual=20),
        value_rate("item_seconds_a_watch", "watch", "watch", usual=200, weight=5),
        rate("item_like_rate", "like", "watch", usual=0.08),
        rate("item_comment_rate", "comment", "watch", usual=0.015),
        rate("item_share_rate", "share", "watch", usual=0.01),
        rate("item_channel_click_rate", "click", "impression", usual=0.09, group="brand", weight=100),
        value_rate("item_channel_seconds_shown", "watch", "impression", usual=20, group="brand", weight=100),
        rate("item_channel_like_rate", "like", "watch", usual=0.08, group="brand"),
        count_in("item_department_7", "department", days=7),
        count_in("item_topic_7", "category", days=7),
        count_in("item_channel_7", "brand", days=7),
        count_in("item_channel_28", "brand", days=28),
        share_in("item_channel_share_28", "brand", days=28),
        attribute("item_length", "duration_seconds"),
        attribute("item_fps", "fps"),
        having("item_in_2160p", "resolution", "2160p"),
        having("item_in_480p", "resolution", "480p"),
        having("item_in_surround", "sound", "surround"),
        having("item_in_mono", "sound", "mono"),
        *(having(f"item_in_{language}", "language", language) for language in LANGUAGES),
    ),
)

users = FeatureService(name="users", features=[user_stats.view])  # what a request reads of its user
items = FeatureService(name="items", features=[item_stats.view])  # what a bundle holds of every item
