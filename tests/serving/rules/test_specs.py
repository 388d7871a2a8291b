"""What a rule is: a frozen dataclass of one class, written in bundle.json as it always was."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from serving.bundle.bundle import settings_of
from serving.rules.rule import BadRule, Bar, Cap, Filter, Floor, Order, Pin
from serving.rules.specs import (
    RULES,
    allowed,
    at_least,
    at_most,
    boost,
    diverse,
    exposure_floor,
    in_stock,
    not_recalled,
    not_seen,
    pin,
    rule,
)  # fmt: skip
from serving.system import UnknownName, load_system

AS_WRITTEN = [  # in bundle.json, before rules had classes: the digest of a bundle covers it
    (in_stock(), {"kind": "in_stock", "settings": {}}, Bar),
    (not_recalled(), {"kind": "not_recalled", "settings": {}}, Bar),
    (allowed(flag="blocked"), {"kind": "allowed", "settings": {"flag": "blocked"}}, Bar),
    (not_seen(), {"kind": "not_seen", "settings": {}}, Filter),
    (at_most(3, per="category"), {"kind": "at_most", "settings": {"count": 3, "per": "category"}}, Cap),
    (at_least(1, newer_than_days=14), {"kind": "at_least", "settings": {"count": 1, "newer_than_days": 14}}, Floor),
    (
        exposure_floor(1, newer_than_days=7.5, every=10),
        {"kind": "exposure_floor", "settings": {"count": 1, "newer_than_days": 7.5, "every": 10}},
        Floor,
    ),
    (diverse(0.4), {"kind": "diverse", "settings": {"strength": 0.4, "among": 50}}, Order),
    (pin("i005"), {"kind": "pin", "settings": {"item_id": "i005", "position": 0}}, Pin),
    (boost(2.0, brand="b"), {"kind": "boost", "settings": {"factor": 2.0, "brand": "b", "category": "", "newer_than_days": 0}}, Order),
]
SHOP = Path(__file__).parent / "shop_settings.json"  # as a bundle of the shop had it before rules were classes


@pytest.mark.parametrize(("made", "written", "of"), AS_WRITTEN, ids=[written["kind"] for _, written, _ in AS_WRITTEN])
def test_a_rule_is_written_into_a_bundle_as_before_and_is_of_its_class(made, written, of) -> None:  # type: ignore[no-untyped-def]
    system = replace(load_system("shop"), rules=(made,))
    assert json.dumps(settings_of(system)["rules"], sort_keys=True) == json.dumps([written], sort_keys=True)
    assert isinstance(made, of)
    assert rule(written["kind"], **written["settings"]) == made  # and is made again from what is written
    assert sum(isinstance(made, one) for one in (Bar, Filter, Pin, Cap, Floor, Order)) == 1
    with pytest.raises(FrozenInstanceError):
        made.kind = "another"


def test_the_shops_settings_are_written_to_the_byte_as_the_first_bundles_have_them_but_for_what_a_head_is() -> None:
    told, first = settings_of(load_system("shop")), json.loads(SHOP.read_text())
    heads, weights = told.pop("objectives"), first.pop("objectives")
    assert json.dumps(told, sort_keys=True) == json.dumps(first, sort_keys=True)
    assert {one["name"]: one["weight"] for one in heads} == weights


def test_every_rule_there_is_is_tried_here() -> None:
    assert {written["kind"] for _, written, _ in AS_WRITTEN} == set(RULES)


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        ("in_stok", {}, BadRule, "no rule 'in_stok': known are in_stock"),
        ("at_most", {"cont": 3}, BadRule, "'at_most' cannot be made.*cont"),
        ("nowhere.rules:Quiet", {}, UnknownName, "cannot be imported.*PYTHONPATH"),
        ("serving.rules.specs:Quiet", {}, UnknownName, "has no 'Quiet'"),
        ("serving.rules.page:Capped", {}, BadRule, "derive it from Bar, Filter, Pin, Cap, Floor or Order"),
        ("serving.rules.rule:Bar", {}, BadRule, "cannot be made.*abstract.*bars"),
    ],
)
def test_a_rule_that_cannot_be_had_is_refused_by_name(kind: str, settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rule(kind, **settings)
