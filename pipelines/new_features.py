"""The Feast repo that `shortlist new` writes beside a system file: of the library's features those its tables have something for."""

from collections.abc import Iterator
from pathlib import Path

from components.data.facts import Facts

STORE = """# {name}'s Feast repo. Every path is relative to the folder of one run, never to this one.
project: {name}
provider: local
registry:
  path: feast/registry.db
  cache_ttl_seconds: 3600
offline_store:
  type: feature_repo.asof.AsOfOfflineStore
online_store:
  type: sqlite
  path: feast/online.db
entity_key_serialization_version: 3
"""
FEATURES = '''"""{name}'s features: written by `shortlist new` to fit its tables; every line may be changed.

What there is to pick from: feature_repo/library.py. A FeatureView of your own, in a service below, is learnt from and answered by.
"""

from feast import Entity, FeatureService, ValueType

{imports}
from feature_repo.views import computed

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)

user_stats = computed(
    "user_stats",
    user,
    (
{user}
    ),
)
item_stats = computed(
    "item_stats",
    item,
    (
{item}
    ),
)

users = FeatureService(name="users", features=[user_stats.view])  # what a request reads of its user
items = FeatureService(name="items", features=[item_stats.view])  # what a bundle holds of every item
'''


def write_repo(name: str, facts: Facts, folder: Path) -> None:
    """Write feature_store.yaml and features.py into `folder`, which is made."""
    user, item = list(_of_users(facts)), list(_of_items(facts))
    used = sorted({line.partition("(")[0] for line in (*user, *item)})
    plans = [name for name in used if name == "planned"]
    imports = [f"from feature_repo.library import {', '.join(name for name in used if name not in plans)}"]
    imports += [f"from feature_repo.shop.own import {name}" for name in plans]
    told = {"user": "\n".join(f"        {line}," for line in user), "item": "\n".join(f"        {line}," for line in item)}
    folder.mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(STORE.format(name=name))
    (folder / "features.py").write_text(FEATURES.format(name=name, imports="\n".join(imports), **told))


def _of_users(facts: Facts) -> Iterator[str]:
    if facts.sessions:  # nothing is known of one before it begins: what it does is in its state
        yield 'count("user_events_28", days=28)'
        return
    empty = facts.empty["events"]
    visit = '"session"'  # where events have no session each is a visit of its own
    yield from (f'count("user_visits_{days}", {visit}, days={days})' for days in (7, 28))
    yield f'count("user_visits_all", {visit})'
    yield 'count("user_events_28", days=28)'
    yield 'days_since_last("user_days_since_last")'
    yield f'gap_days("user_gap_days", {visit})'
    yield f'due("user_due", {visit})'
    yield f'mean_size("user_visit_size", {visit})'
    yield 'count("user_items", "item_id")'
    if any(facts.levels):
        yield 'count("user_categories", "type")'
    if facts.brands:
        yield 'count("user_brands", "brand")'
    if "context_store" not in empty:
        yield 'count("user_stores", "store")'
    yield 'share("user_repeat_share_28", "repeat", days=28)'
    if "price" not in empty:
        if "value" not in empty:
            yield 'total("user_spend_28", "spend", days=28)'
        yield 'mean("user_price", "price")'
    if _planned(facts):
        yield 'mean("user_promoted_share", "promoted")'
    yield 'days_since_first("user_tenure_days")'


def _of_items(facts: Facts) -> Iterator[str]:
    for kind, of in (("users", ', "user_id"'), ("events", "")):
        yield from (f'count("item_{kind}_{days}"{of}, days={days})' for days in (7, 14, 28))
        yield f'count("item_{kind}_all"{of})'
    yield 'trend("item_trend", "user_id", short=7, long=28)'
    if any(again > 0 for again in facts.again.values()):
        yield 'rebuy_rate("item_again_rate")'
        yield 'rebuy_gap_days("item_again_gap_days")'
    yield 'days_since_last("item_days_since_last")'
    yield 'days_since_first("item_days_since_first")'
    if "price" not in facts.empty["events"]:
        yield 'log_median("item_price", "price")'
        if any(facts.levels):
            yield 'relative_price("item_relative_price", "type")'
    for level, group in zip(facts.levels, ("department", "category", "type"), strict=False):
        if level:
            yield f'count_in("item_{group}_28", "{group}", days=28)'
    if facts.brands:
        yield 'count_in("item_brand_28", "brand", days=28)'
    if any(facts.levels):
        yield 'share_in("item_type_share_28", "type", days=28)'
    if "context_store" not in facts.empty["events"]:
        yield 'count("item_stores", "store")'
    if _planned(facts):
        yield 'mean("item_promoted_share", "promoted")'
        yield from (f'planned("item_planned_{what}", "{what}")' for what in ("display", "mailer"))


def _planned(facts: Facts) -> bool:
    return bool(facts.rows["context"])
