"""Two bundles in one worker: users keep their side, the share is what was told, and each answer, count and half is of one bundle alone."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from serving.bundle.bundle import show
from serving.two_bundles import Split, place
from serving.worker.release import BesideRelease, Release, write_release
from tests.serving.servers import Running, following, running, tiny_options, until
from tests.serving.tiny_bundle import states, write_tiny

USERS = [f"u{number:02}" for number in range(12)] + [f"visitor{number}" for number in range(188)]


def answers(server: Running, headers: dict[str, str] | None = None) -> dict[str, str]:
    """Digest that answered each user."""
    told = {}
    for user in USERS:
        status, answer = server.ask("POST", "/v1/recommendations", {"user_id": user, "k": 3}, headers)
        assert status == 200
        assert answer["degraded"] is None or answer["degraded"]["rung"] != "static", answer
        told[user] = answer["bundle"]
    return told


def count(server: Running, metric: str) -> Counter[str]:
    """By the bundle's letters."""
    found: Counter[str] = Counter()
    for line in server.ask("GET", "/metrics")[1].decode().splitlines():
        if line.startswith(f"{metric}{{") and ('route="/v1/recommendations"' in line or "_count" in metric):
            found[line.partition('bundle="')[2].partition('"')[0]] += int(float(line.rpartition(" ")[2]))
    return found


@given(st.text(max_size=20), st.text(max_size=80), st.floats(0, 100), st.floats(0, 100))
def test_whoever_is_on_the_new_side_stays_there_as_the_share_grows(user: str, salt: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    if Split("a", "b", low, salt).of(user) == "b":
        assert Split("a", "b", high, salt).of(user) == "b"
    assert Split("a", "b", 0.0, salt).of(user) == "a"
    assert Split("a", "b", 100.0, salt).of(user) == "b"


def test_the_share_is_of_users_and_another_salt_is_another_share() -> None:
    users = [f"user{number}" for number in range(20_000)]
    for percent in (5, 25, 50):
        sides = [[place(user, salt) < percent for user in users] for salt in ("one", "two")]
        for side in sides:
            assert abs(sum(side) / len(users) - percent / 100) < 4 * (percent / 100 * (1 - percent / 100) / len(users)) ** 0.5
        both = sum(one and two for one, two in zip(*sides, strict=True)) / len(users)
        assert abs(both - (percent / 100) ** 2) < 0.015


def test_a_rollout_from_beside_to_the_place_of_the_first(tmp_path: Path) -> None:
    """Dark, a quarter of the users, promoted with the old one warm, alone: each by the release file."""
    second = write_tiny(tmp_path / "second", user_lists=False)
    states().save(tmp_path / "users")
    with following(tmp_path) as (server, file):
        old = server.ask("POST", "/v1/recommendations", {"user_id": "u01", "k": 3})[1]["bundle"]
        new = show(second)["digest"]
        first = Release(str(tmp_path / "bundles" / old[7:]), str(tmp_path / "users"), old)

        def told(percent: float) -> Release:
            beside = BesideRelease(str(second), str(tmp_path / "users"), new, percent=percent, salt="r1")
            return Release(first.bundle, first.users, old, beside=beside)

        write_release(file, told(0))
        dark = {"x-shortlist-bundle": new}
        until(lambda: server.ask("POST", "/v1/recommendations", {"user_id": "u01"}, dark)[1]["bundle"] == new, 60)
        assert set(answers(server).values()) == {old}
        write_release(file, told(25))
        split = Split(old, new, 25, "r1")
        until(lambda: len(set(answers(server).values())) == 2, 20)
        assert answers(server) == {user: split.of(user) for user in USERS}
        before = count(server, "shortlist_requests_total")
        sides = Counter(answers(server).values())
        after = count(server, "shortlist_requests_total")
        assert {letters: after[letters] - before[letters] for letters in after} == {one[7:19]: number for one, number in sides.items()}
        event = {"event_id": "e1", "event_type": "click", "user_id": "u01", "item_id": "i100", "timestamp": "2024-10-04T13:00:00Z"}
        assert server.ask("POST", "/v1/events", {"events": [event]})[1]["accepted"] == 1
        lists = [server.ask("POST", "/v1/recommendations", {"user_id": "u01"}, {"x-shortlist-bundle": one})[1] for one in (old, new)]
        assert [one["bundle"] for one in lists] == [old, new]
        why = [server.ask("GET", f"/v1/why/{one['request_id']}")[1] for one in lists]
        assert [one["bundle"] for one in why] == [old, new]
        here = Release(str(second), first.users, new, beside=BesideRelease(first.bundle, first.users, old))
        write_release(file, here)
        until(lambda: set(answers(server).values()) == {new}, 20)
        write_release(file, Release(str(second), first.users, new))
        until(lambda: server.ask("POST", "/v1/recommendations", {"user_id": "u01"}, {"x-shortlist-bundle": old})[1]["bundle"] == new, 60)


def test_each_bundle_of_a_split_recommender_asks_its_own_halves(tmp_path: Path) -> None:
    second = write_tiny(tmp_path / "second", user_lists=False)
    options = tiny_options(tmp_path)
    first = options.bundle
    assert first is not None
    old, new = show(first)["digest"], show(second)["digest"]
    with ExitStack() as stack:
        halves = {}
        for bundle in (first, second):
            for role in ("retrieval", "ranking"):
                made = stack.enter_context(running(options, bundle=bundle, role=role, digest=show(bundle)["digest"]))
                halves[bundle, role] = f"127.0.0.1:{made.port}"
        asked = {bundle: {role: halves[bundle, role] for role in ("retrieval", "ranking")} for bundle in (first, second)}
        users = str(options.users)
        beside = BesideRelease(str(second), users, new, **asked[second], percent=50.0, salt="r2")
        file = tmp_path / "release.json"
        write_release(file, Release(str(first), users, old, **asked[first], beside=beside))
        server = stack.enter_context(running(options, role="recommender", bundle=None, users=None, follow=file))
        split = Split(old, new, 50.0, "r2")
        for user in USERS[:40]:
            answer = server.ask("POST", "/v1/recommendations", {"user_id": user, "k": 3})[1]
            assert answer["bundle"] == split.of(user)
            assert answer["degraded"] is None  # a half of the other bundle would have refused


def test_a_half_that_holds_another_bundle_than_it_should_does_not_start(tmp_path: Path) -> None:
    import subprocess
    import sys

    options = tiny_options(tmp_path, role="retrieval", digest="sha256:" + "0" * 64)
    ended = subprocess.run([sys.executable, "-m", "serving", *options.arguments()], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "asked for was sha256:000" in ended.stdout + ended.stderr
