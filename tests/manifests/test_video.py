"""The system `video` beside the shop: the same objects in a namespace of their own, and the shop's as they were."""

import json
import shutil

import pytest

from tests.manifests.rendered import Object, of_kind, rendered, with_menu_line, with_option
from tests.manifests.schemas import faults

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl, which holds Kustomize")

RENAMED = {  # all that may differ
    "shortlist": "shortlist-video", "shop": "video", "--system=shop": "--system=video", "shop-retrieval": "video-retrieval",
    "shop-ranking": "video-ranking", "rollout-shop": "rollout-video", "shop.example.com": "video.example.com",
    "--state=redis://redis.redis:6379/0": "--state=redis://redis.redis:6379/1",
    "--events=kafka://kafka.kafka:9092/shortlist-events": "--events=kafka://kafka.kafka:9092/video-events",
}  # fmt: skip
NAMES_OF_CODE = ("part-of", "command")  # where "shortlist" is the product or its command, not the namespace


def inside(made: tuple[Object, ...], space: str) -> list[Object]:
    return [one for one in made if one["metadata"].get("namespace") == space]


def renamed(value: object, at: str = "") -> object:
    if isinstance(value, dict):
        return {name: renamed(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [inner if at == "command" and inner == "shortlist" else renamed(inner, at) for inner in value]
    kept = at.endswith(NAMES_OF_CODE) and value == "shortlist"
    return value if kept or not isinstance(value, str) else RENAMED.get(value, value)


def sorted_texts(objects: list[Object]) -> list[str]:
    return sorted(json.dumps(one, sort_keys=True) for one in objects)


def test_video_is_the_shop_under_another_name_and_nothing_is_copied() -> None:
    shop = [renamed(one) for one in inside(with_option("network-policies"), "shortlist")]
    assert sorted_texts(inside(with_option("video"), "shortlist-video")) == sorted_texts(shop)  # type: ignore[arg-type]


def test_beside_video_the_shop_is_as_it_was() -> None:
    made = with_menu_line("production", "video")
    assert faults(list(made)) == []
    others = [one for one in made if one["metadata"].get("namespace") != "shortlist-video" and one["metadata"]["name"] != "shortlist-video"]
    assert sorted_texts(others) == sorted_texts(list(rendered("production")))


def test_in_production_both_are_asked_by_their_own_address_with_keys() -> None:
    made = with_menu_line("production", "video")
    hosts = {one["metadata"]["namespace"]: one["spec"]["hostnames"] for one in of_kind(made, "HTTPRoute") if "hostnames" in one["spec"]}
    assert hosts == {"shortlist": ["shop.example.com"], "shortlist-video": ["video.example.com"]}
    for one in of_kind(made, "Deployment"):
        if one["metadata"]["name"] == "recommender":
            assert "--keys=/keys/keys.json" in one["spec"]["template"]["spec"]["containers"][0]["args"]
            assert one["spec"]["template"]["spec"]["containers"][0]["image"].startswith("registry.example.com/")
