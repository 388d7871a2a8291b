"""What is written into InferenceServices and read from them, on objects as KServe keeps them."""

from typing import Any

import pytest

from components.release.rollout_state import BundleRef, Placed
from components.release.services import address, applied, standing

OLD, NEW = BundleRef("a" * 64, "1", "r0"), BundleRef("b" * 64, "2", "r1")
EMPTY = {
    "metadata": {"name": "shop-ranking", "generation": 1},
    "spec": {"predictor": {"minReplicas": 2, "model": {"modelFormat": {"name": "shortlist-onnx"}, "runtime": "shortlist-ranking"}}},
}


def merged(placed: Placed, **status: Any) -> dict[str, Any]:
    """The service after the apply: our fields over what the manifests say."""
    own = applied("shop", "ranking", "shortlist", placed, EMPTY)["spec"]
    model = EMPTY["spec"]["predictor"]["model"] | own["predictor"]["model"]  # type: ignore[index]
    spec = {"predictor": EMPTY["spec"]["predictor"] | own["predictor"] | {"model": model}}  # type: ignore[index]
    return {
        **EMPTY,
        "spec": spec | {name: value for name, value in own.items() if name == "canary"},
        "status": {"observedGeneration": 1, **status},
    }


def routes(**weights: int | None) -> list[dict[str, Any]]:
    backends = [
        {"name": f"shop-ranking-{name}-predictor"} | ({} if weight is None else {"weight": weight}) for name, weight in weights.items()
    ]
    return [{"spec": {"rules": [{"backendRefs": backends}]}}] * 2


A, B = "b" + "a" * 12, "b" + "b" * 12
READY = {"conditions": [{"type": "PredictorReady", "status": "True"}]}


def test_a_service_without_a_bundle_has_nobody() -> None:
    assert standing({**EMPTY, "status": {}}, []).stable is None


def test_each_variant_carries_its_own_name_uri_digest_and_rollout_wherever_it_stands() -> None:
    """So that a promotion changes no pod template, and a pod refuses another bundle than its own."""
    during = applied("shop", "ranking", "shortlist", Placed(OLD, NEW, 5), EMPTY)["spec"]
    after = applied("shop", "ranking", "shortlist", Placed(NEW, OLD, 0), EMPTY)["spec"]
    assert during["canary"] == [{"trafficPercent": 5, "predictor": after["predictor"]}]
    assert after["canary"] == [{"trafficPercent": 0, "predictor": during["predictor"]}]
    model = after["predictor"]["model"]
    assert model["storageUri"] == f"s3://models/shop/{NEW.digest}/"
    assert model["args"] == ["--digest", f"sha256:{NEW.digest}"]
    assert address("shop", "ranking", NEW.digest, "shortlist") == f"shop-ranking-{B}-predictor.shortlist.svc:80"
    assert "canary" not in applied("shop", "ranking", "shortlist", Placed(NEW), EMPTY)["spec"]


@pytest.mark.parametrize(("ready", "weights", "seen"), [(True, {A: 95, B: 5}, 5), (False, {A: 100}, 0), (True, {A: 75, B: 25}, 25)])
def test_what_the_service_says_is_read_back(ready: bool, weights: dict[str, int], seen: int) -> None:
    told = merged(Placed(OLD, NEW, 5), **READY, canaryStatuses=[{"name": B, "ready": ready}])
    found = standing(told, routes(**weights))
    assert found.stable is not None
    assert (found.stable.bundle, found.stable.ready) == (OLD, True)
    (beside,) = found.beside
    assert (beside.bundle, beside.percent, beside.ready, beside.weight) == (NEW, 5, ready, seen)


def test_routes_that_differ_are_no_share_and_a_single_backend_has_all() -> None:
    told = merged(Placed(OLD, NEW, 5), **READY, canaryStatuses=[{"name": B, "ready": True}])
    one, two = routes(**{A: 95, B: 5})[0], routes(**{A: 75, B: 25})[0]
    assert standing(told, [one, two]).beside[0].weight == -1
    alone = standing(merged(Placed(OLD), **READY), routes(**{A: None}))
    assert alone.stable is not None
    assert alone.stable.weight == 100


def test_a_status_of_an_earlier_generation_says_nothing_of_now() -> None:
    told = merged(Placed(NEW), **READY)
    told["metadata"] = {**told["metadata"], "generation": 2}
    stable = standing(told, routes(**{B: None})).stable
    assert stable is not None
    assert not stable.ready
