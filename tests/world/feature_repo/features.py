"""The tiny world's features: those the shop picks, under Feast objects of its own."""

from feast import Entity, FeatureService, ValueType

from feature_repo.shop import features as shop
from feature_repo.views import computed

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)

user_stats = computed("user_stats", user, shop.user_stats.features)
item_stats = computed("item_stats", item, shop.item_stats.features)

users = FeatureService(name="users", features=[user_stats.view])  # what a request reads of its user
items = FeatureService(name="items", features=[item_stats.view])  # what a bundle holds of every item
