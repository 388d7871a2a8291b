"""The features of the tiny world, by name: those its repo picks."""

from feature_repo.shop import features as shop

USER_FEATURES = tuple(feature.name for feature in shop.user_stats.features)
ITEM_FEATURES = tuple(feature.name for feature in shop.item_stats.features)
