"""Keys, tokens, scopes and rates: who may ask what, and how often."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from serving.http.auth import BadKeys, Guard, Keys, batch_cost, list_cost, load_keys
from serving.http.counters import Counters
from serving.messages import Asking, Only, WireProblem

SECRET = "a secret of at least thirty-two bytes"


def keys(tmp_path: Path, **more: Any) -> Keys:
    web = {"name": "web", "sha256": hashlib.sha256(b"web-key").hexdigest(), "scopes": ["recommend"]}
    path = tmp_path / "keys.json"
    path.write_text(
        json.dumps({"keys": [web | more.pop("web", {})], "jwt": {"key": SECRET, "algorithms": ["HS256"], "audience": "shortlist"}} | more)
    )
    return load_keys(path)


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def token(key: str = SECRET, **claims: Any) -> dict[str, Any]:
    told = {"sub": "app", "aud": "shortlist", "exp": int(time.time()) + 60, "scope": "recommend why"} | claims
    return scope(authorization="Bearer " + jwt.encode({name: value for name, value in told.items() if value is not None}, key, "HS256"))


async def refusal(guard: Guard, asked: dict[str, Any], needed: str = "recommend") -> int:
    with pytest.raises(WireProblem) as refused:
        await guard.admit(asked, needed)
    return refused.value.status


async def test_without_a_keys_file_everybody_may_ask_everything() -> None:
    guard = Guard()
    await guard.admit_user("anybody")
    assert [await guard.admit(scope(), needed) for needed in ("recommend", "events", "items", "why", "admin")] == [
        ""
    ] * 5  # nobody in particular


async def test_a_key_opens_what_its_scopes_allow_and_nothing_else(tmp_path: Path) -> None:
    guard = Guard(keys(tmp_path))
    await guard.admit(scope(x_api_key="web-key"), "recommend")
    assert await refusal(guard, scope(x_api_key="web-key"), "events") == 403
    assert await refusal(guard, scope(x_api_key="other")) == 401
    assert await refusal(guard, scope()) == 401
    await guard.admit(scope(), None)  # probes stay open


async def test_an_admin_key_opens_everything(tmp_path: Path) -> None:
    guard = Guard(keys(tmp_path, web={"scopes": ["admin"]}))
    told = {await guard.admit(scope(x_api_key="web-key"), needed) for needed in ("recommend", "events", "items", "why", "admin")}
    assert told == {"web"}


async def test_a_token_opens_what_its_scope_claim_lists(tmp_path: Path) -> None:
    guard = Guard(keys(tmp_path))
    await guard.admit(token(), "why")
    assert await refusal(guard, token(), "events") == 403


@pytest.mark.parametrize(
    "claims", [{"exp": 1}, {"exp": None}, {"aud": "another"}, {"sub": None}, {"key": "another secret, also of thirty-two bytes"}]
)
async def test_a_token_that_is_old_or_not_for_us_or_not_signed_by_us_is_refused(tmp_path: Path, claims: dict[str, Any]) -> None:
    assert await refusal(Guard(keys(tmp_path)), token(**claims)) == 401


async def test_a_token_that_is_not_signed_at_all_is_refused(tmp_path: Path) -> None:
    forged = jwt.encode({"sub": "x", "aud": "shortlist", "exp": int(time.time()) + 60, "scope": "admin"}, "", "none")
    assert await refusal(Guard(keys(tmp_path)), scope(authorization=f"Bearer {forged}")) == 401
    assert await refusal(Guard(keys(tmp_path)), scope(authorization="Bearer \xff\xfe")) == 401


async def test_a_client_beyond_its_rate_is_told_to_slow_down(tmp_path: Path) -> None:
    guard = Guard(keys(tmp_path, web={"rate": "3/hour"}))
    for _ in range(3):
        await guard.admit(scope(x_api_key="web-key"), "recommend")
    assert await refusal(guard, scope(x_api_key="web-key")) == 429


async def test_one_user_beyond_the_rate_does_not_hold_up_another(tmp_path: Path) -> None:
    guard = Guard(keys(tmp_path, user_rate="2/hour"))
    await guard.admit_user("a")
    await guard.admit_user("a")
    with pytest.raises(WireProblem, match="2/hour"):
        await guard.admit_user("a")
    await guard.admit_user("b")


async def test_machines_count_together_in_redis(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.http.counters._ANSWER_SECONDS", 10.0)
    first, second = (Guard(keys(tmp_path, user_rate="2/hour", storage=f"redis+{redis_url}")) for _ in range(2))
    await first.admit_user("shared")
    await second.admit_user("shared")
    with pytest.raises(WireProblem):
        await first.admit_user("shared")
    for guard in (first, second):
        await guard.close()


@pytest.mark.parametrize(
    ("text", "named"), [("{", "keys.json"), ('{"key": []}', "key"), ('{"keys": [{"name": "a", "sha256": "x", "scopes": []}]}', "sha256")]
)
async def test_a_keys_file_that_is_wrong_is_refused_and_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(BadKeys, match=named):
        load_keys(tmp_path / "keys.json")


async def test_a_rate_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadKeys, match="500/second"):
        Guard(keys(tmp_path, user_rate="often"))


async def test_a_call_counts_what_it_costs(tmp_path: Path) -> None:
    guard = Guard(keys(tmp_path, web={"rate": "70/hour"}))
    asked = scope(x_api_key="web-key")
    await guard.admit(asked, "recommend")
    await guard.charge(asked, 64)  # lists in one call
    assert [list_cost(Asking(k=k)) for k in (None, 1, 10, 200, 201, 1000)] == [1, 1, 1, 1, 2, 5]
    assert [list_cost(Asking(k=k, only=Only(category=("a",)), leave_out=("i",))) for k in (None, 1000)] == [5, 9]
    assert [list_cost(Asking(k=k, leave_out=("i",))) for k in (None, 1000)] == [2, 6]
    assert [batch_cost(number) for number in (0, 1, 50, 51, 1000)] == [1, 1, 1, 2, 20]
    await guard.charge(asked, list_cost(Asking(k=1000)) + 1)
    await guard.admit(scope(x_api_key="web-key"), "recommend")
    assert await refusal(guard, scope(x_api_key="web-key")) == 429
    with pytest.raises(WireProblem, match="ask for less in one"):
        await guard.charge(asked, 72)


async def test_workers_of_one_machine_count_together(tmp_path: Path) -> None:
    shared = tmp_path / "rates"
    guards = [Guard(keys(tmp_path, user_rate="5/hour"), Counters(shared)) for _ in range(2)]
    for turn in range(5):
        await guards[turn % 2].admit_user("a")
    for guard in guards:
        with pytest.raises(WireProblem):
            await guard.admit_user("a")
        await guard.admit_user("b")


@pytest.mark.parametrize(
    ("jwt", "named"),
    [
        ({"key": "", "algorithms": ["HS256"]}, "at least 32"),
        ({"key": SECRET, "algorithms": ["HS256", "RS256"]}, "mixes"),
        ({"key": "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----", "algorithms": ["HS256"]}, "public key"),
    ],
)
def test_tokens_that_anybody_could_make_are_not_accepted_at_all(tmp_path: Path, jwt: dict[str, Any], named: str) -> None:
    with pytest.raises(BadKeys, match=named):
        Guard(keys(tmp_path, jwt=jwt))


async def test_a_token_whose_claims_are_no_moments_is_refused(tmp_path: Path) -> None:
    guard = Guard(keys(tmp_path))
    for claims in ({"exp": "soon"}, {"scope": ["recommend"]}, {"nbf": int(time.time()) + 600}):
        assert await refusal(guard, token(**claims)) == 401


async def test_a_recall_waits_for_no_rate_and_needs_its_scope_all_the_same(tmp_path: Path) -> None:
    guard = Guard(keys(tmp_path, web={"rate": "1/hour", "scopes": ["recommend", "safety"]}))
    await guard.admit(scope(x_api_key="web-key"), "recommend")
    assert await refusal(guard, scope(x_api_key="web-key")) == 429
    for _ in range(5):
        await guard.admit(scope(x_api_key="web-key"), "safety")
    assert await refusal(Guard(keys(tmp_path)), scope(x_api_key="web-key"), "safety") == 403
