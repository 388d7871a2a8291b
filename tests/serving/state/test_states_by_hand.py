"""What each kind of event makes of a state, what is kept beside it, and what another cut, consent, deletion or damage makes of both.

Of the tiny world's users: u01 has items 1, 13 and 25, last 9 days before DAY; u11 consents to minimal use.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.bundle.catalogue import item_key
from serving.event_meanings import Again, Follow, Ignored, Negative, Never, Positive, Shown, Signal, type_code
from serving.messages import ERASE
from serving.state.feast_row import Row
from serving.state.fold import RECENT, Fold, fresh
from serving.state.sqlite import SqliteStore
from serving.state.states import KEEP_DAYS, RECENT_LENGTH, Online, States, open_store
from serving.state.store import StateEvent, StateStore
from serving.state.user_state import AGAIN, FOLLOWED, LESS, NEVER, UserState
from serving.system import Learning
from tests.serving import tiny_bundle
from tests.serving.tiny_bundle import DAY

TABLE = tiny_bundle.states()
MEANINGS = {
    "watch": Positive(value="seconds", at_least=10, usual=300), "purchase": Positive(2.0), "click": Signal(0.6), "hide": Never(),
    "dislike": Negative(), "follow": Follow(), "unhide": Again(), "impression": Shown(), "visit": Ignored(),
}  # fmt: skip
LEARNING = Learning(events=MEANINGS)
OLD = UserState("nobody")


def event(
    number: int, kind: str = "click", item: str = "i100", day: float | None = None, user: str = "u01", value: float = np.nan
) -> StateEvent:
    return StateEvent(f"e{number}", user, item, kind, DAY + number / 100 if day is None else day, value)


def erased(number: int, day: float | None = None, user: str = "u01") -> StateEvent:
    return event(number, ERASE, ERASE, day, user)


def keys(*items: str) -> list[int]:
    return sorted(item_key(item) for item in items)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    made = open_store(f"sqlite:{tmp_path / 'states'}", 1000)
    yield made
    made.close()


def recent(store: StateStore, user: str = "u01") -> np.ndarray:
    """The events kept beside the state."""
    found: list[bytes] = []

    def look(_: str, value: bytes | None, kept: bytes | None) -> tuple[bytes, bytes]:
        found.append(kept or b"")
        return value or b"", kept or b""

    store.change([user], look)
    return np.frombuffer(found[0], RECENT)


def test_each_meaning_does_what_it_says_and_what_means_nothing_is_not_told_of() -> None:
    fold = Fold(LEARNING)
    assert set(fold.told) == {"watch", "purchase", "click", "hide", "dislike", "follow", "unhide"}
    told = [event(n, kind, f"i{n:03}") for n, kind in enumerate(MEANINGS, 1)]
    told[0] = replace(told[0], value=300.0)
    state = fold.of(OLD, told)
    assert state.keys.tolist() == keys("i001", "i002")
    assert state.session_keys.tolist() == keys("i003")
    assert state.session_types.tolist() == [type_code("click")]
    assert state.session_days.tolist() == [DAY + 0.03]
    said = dict(zip(state.said_keys.tolist(), zip(state.said.tolist(), state.said_days.tolist(), strict=True), strict=True))
    assert said == {
        item_key("i004"): (NEVER, DAY + 0.04), item_key("i005"): (LESS, DAY + 0.05), item_key("i006"): (FOLLOWED, DAY + 0.06),
        item_key("i007"): (AGAIN, DAY + 0.07),
    }  # fmt: skip
    worth = dict(zip(state.keys.tolist(), state.decayed[:, 0].tolist(), strict=True))
    assert worth == {item_key("i001"): pytest.approx(1.0), item_key("i002"): pytest.approx(2.0)}


def test_a_positive_counts_by_its_value_and_below_the_least_not_at_all() -> None:
    def worth(value: float) -> list[float]:
        return Fold(LEARNING).of(OLD, [event(1, "watch", value=value)]).decayed[:, 0].tolist()

    assert worth(300.0) == [pytest.approx(1.0)]
    assert worth(9.9) == worth(np.nan) == []  # nothing watched, or not said
    assert worth(10.0) == [pytest.approx(np.log1p(10) / np.log1p(300))]


def test_events_of_before_the_moment_asked_for_are_left_out_and_of_that_moment_are_not() -> None:
    rows = fresh(np.empty(0, RECENT), [event(1, day=DAY - 0.001), event(2, day=DAY)])
    assert Fold(LEARNING).folded(OLD, rows, DAY).session_days.tolist() == [DAY]
    assert len(Fold(LEARNING).folded(OLD, rows, DAY - 1).session_days) == 2


def test_an_event_is_fresh_once_by_its_name_and_says_all_of_itself() -> None:
    first = fresh(np.empty(0, RECENT), [event(1, "watch", value=5.0), event(1, "click"), event(2)])
    assert first["type"].tolist() == [type_code("watch"), type_code("click")]
    assert first["key"].tolist() == [item_key("i100")] * 2
    assert first["day"].tolist() == [DAY + 0.01, DAY + 0.02]
    assert first["value"][0] == 5.0
    assert np.isnan(first["value"][1])
    assert fresh(first, [event(2), event(3), event(1)])["day"].tolist() == [DAY + 0.03]
    assert len(fresh(first, [])) == 0


def test_what_was_never_sent_is_the_cuts_and_of_nobody_nothing(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    assert (states.cut_day, states.floor_day) == (DAY, DAY - 28)
    assert states.known("u01").keys.tolist() == keys("i001", "i013", "i025")
    assert states.known("u00").keys.tolist() == keys("i000", "i012", "i024")  # the table's first
    assert states.known("nobody").is_unknown
    assert [states.consent(user) for user in ("u01", "u11", "nobody")] == ["full", "minimal", "full"]
    bare = States(store, None, LEARNING)
    assert (bare.cut_day, bare.consent("u01"), bare.known("u01").is_unknown, bare.some(3)) == (0.0, "full", True, [])
    assert [state.user_id for state in states.some(4)] == ["u00", "u03", "u06", "u09"]
    assert len(states.some(100)) == len(TABLE)
    assert len(states.some(5)) == 5


def test_types_that_change_no_state_are_counted(store: StateStore) -> None:
    assert States(store, TABLE, LEARNING).unused(["click", "impression", "visit", "impression"]) == {"impression": 2, "visit": 1}


def test_events_of_before_every_table_are_not_kept_and_the_first_that_may_matter_is(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    states.apply([event(1, "purchase", day=DAY - KEEP_DAYS - 0.01), event(2, "impression")])
    assert states.store.get("u01").value is None
    states.apply([event(3, "purchase", day=DAY - KEEP_DAYS)])
    assert len(recent(store)) == 1  # for a table of an earlier cut; this one's knows it
    assert states.read("u01").keys.tolist() == keys("i001", "i013", "i025")
    earlier = States(store, replace(TABLE, cut_day=DAY - KEEP_DAYS), LEARNING)
    assert item_key("i100") in earlier.read("u01").keys


def test_of_another_cut_what_is_older_than_it_keeps_is_let_go(store: StateStore) -> None:
    States(store, TABLE, LEARNING).apply([event(1, "purchase", "i100", DAY + 1), event(2, "purchase", "i101", DAY + 2)])
    later = States(store, replace(TABLE, cut_day=DAY + 1 + KEEP_DAYS), LEARNING)
    assert later.peek("u01") is None
    assert later.read("u01").keys.tolist() == keys("i001", "i013", "i025")
    assert later.peek("u01") is not None
    assert recent(store)["day"].tolist() == [DAY + 1, DAY + 2]
    States(store, replace(TABLE, cut_day=DAY + 1.01 + KEEP_DAYS), LEARNING).read("u01")
    assert recent(store)["day"].tolist() == [DAY + 2]


def test_only_the_latest_are_kept_beside_a_state(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    states.apply([event(n) for n in range(RECENT_LENGTH + 3)])
    assert RECENT_LENGTH == 4096
    assert recent(store)["day"][[0, -1]].tolist() == [DAY + 0.03, DAY + (RECENT_LENGTH + 2) / 100]


def test_a_commit_moves_states_and_position_or_nothing(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    assert states.commit(None, b"W1", [event(1)])
    assert not states.commit(None, b"W2", [event(2)])
    assert store.position() == b"W1"
    assert len(states.read("u01").session_keys) == 1
    assert states.commit(b"W1", b"W2", [event(2), event(3, user="u02")])
    assert [len(states.read(user).session_keys) for user in ("u01", "u02", "u03")] == [2, 1, 0]
    assert states.look("u01")[1]


def test_with_events_is_what_apply_makes(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    events = [event(1, "purchase"), event(1, "purchase"), event(2, "hide", "i001"), event(3, "impression"), event(4, day=DAY - 1)]
    made = states.with_events(states.known("u01"), events)
    states.apply(events)
    assert made.same_as(states.read("u01"))
    assert made.hidden.tolist() == keys("i001")
    assert len(made.session_keys) == 0  # the table knows what was before its cut
    minimal = states.known("u11")
    assert states.with_events(minimal, [event(1, user="u11")]) is minimal


def test_of_who_consents_to_less_nothing_is_kept_but_the_wish_to_be_deleted(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    states.apply([event(1, "purchase", user="u11"), erased(2, user="u11"), event(3, user="u11")])
    assert (states.read("u11").is_unknown, states.read("u11").consent) == (True, "minimal")
    assert recent(store, "u11")["type"].tolist() == [type_code(ERASE)]


def test_a_deletion_leaves_what_comes_after_it_and_is_of_a_later_day(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    states.apply([event(1, "purchase", "i100"), erased(2), event(3, "purchase", "i101"), event(4, "purchase", "i102", DAY + 0.01)])
    assert states.read("u01").keys.tolist() == keys("i101")  # i102 came late: it is of before
    assert recent(store)["type"].tolist() == [type_code(ERASE), type_code("purchase")]
    states.apply([event(5, "purchase", "i103", DAY + 0.02)])  # of the deletion's moment
    assert states.read("u01").keys.tolist() == keys("i101")
    states.apply([event(6, "purchase", "i104")])
    assert states.read("u01").keys.tolist() == keys("i101", "i104")
    again = States(store, replace(TABLE, cut_day=DAY - 1), LEARNING)  # made anew under another cut
    assert again.read("u01").keys.tolist() == keys("i101", "i104")
    states.apply([erased(7)])
    assert states.read("u01").is_unknown
    assert recent(store)["type"].tolist() == [type_code(ERASE)] * 2
    much_later = States(store, replace(TABLE, cut_day=DAY + 100), LEARNING)
    assert much_later.read("u01").is_unknown  # however long ago: the table may have learnt from before


def test_a_deletion_that_no_store_has_yet_leaves_what_comes_after_it_where_it_is_the_first_word_too(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    states.apply([event(1, "purchase", "i100")])
    for before in ([], [event(2, "purchase", "i102")]):
        found = states.with_events(states.read("u01"), [*before, erased(3), event(4, "purchase", "i101")])
        assert found.keys.tolist() == keys("i101")


def test_what_comes_late_is_not_kept_beside_a_deletion_that_was_the_first_word(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    states.apply([erased(2)])
    states.apply([event(3, day=DAY + 0.01)])
    assert recent(store)["type"].tolist() == [type_code(ERASE)]
    states.apply([event(4)])
    assert recent(store)["type"].tolist() == [type_code(ERASE), type_code("click")]


def test_a_deletion_alone_is_known_whatever_its_day(store: StateStore) -> None:
    states = States(store, TABLE, LEARNING)
    states.apply([erased(1, DAY - KEEP_DAYS - 5)])
    assert states.read("u01").is_unknown


def test_who_is_deleted_in_the_book_is_nobody_without_the_log(store: StateStore) -> None:
    told = {"u01": DAY + 0.05, "u11": DAY}
    states = States(store, TABLE, LEARNING, deleted=told.get)
    assert states.known("u01").is_unknown
    assert states.known("u02").keys.tolist() == keys("i002", "i014", "i026")
    assert states.known("u11").consent == "minimal"
    made = states.with_events(states.known("u01"), [event(5, "purchase", "i100"), event(6, "purchase", "i101")])
    assert made.keys.tolist() == keys("i101")
    after = states.with_events(
        states.known("u02"), [event(1, "purchase", user="u02"), erased(2, user="u02"), event(3, "purchase", "i103", user="u02")]
    )
    assert after.keys.tolist() == keys("i103")


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 8 + b"another cut's", None], ids=["empty", "short", "other", "spoilt"])
def test_what_cannot_be_read_is_made_again_and_half_an_event_is_none(store: StateStore, damage: bytes | None) -> None:
    states = States(store, TABLE, LEARNING)
    states.apply([event(1), event(2, "purchase")])
    whole = states.read("u01").pack()

    def spoil(_: str, value: bytes | None, kept: bytes | None) -> tuple[bytes, bytes]:
        return (value or b"")[:20] if damage is None else damage, (kept or b"") + b"half"

    store.change(["u01"], spoil)
    assert states.peek("u01") is None
    assert states.read("u01").pack() == whole
    assert len(recent(store)) == 2


class Told:
    """What an online store's row was said to be."""

    def __init__(self) -> None:
        self.ages, self.missed = list[float](), 0

    def miss(self) -> None:
        self.missed += 1


def test_feasts_row_takes_the_place_of_the_cuts_where_it_has_one() -> None:
    told = Told()
    online = Online(77, None, told.ages.append, told.miss)
    row = Row(np.arange(3, dtype=np.float32), DAY + 2)
    state = online.put("u01", TABLE[1], row)
    assert (state.features.tolist(), state.schema_key, state.keys.tolist()) == ([0, 1, 2], 77, TABLE[1].keys.tolist())
    assert (told.ages, told.missed) == ([DAY + 2], 0)
    assert online.put("u01", TABLE[1], None).schema_key == TABLE[1].schema_key
    assert online.put("u01", TABLE[1], Row(row.values, float("nan"))).schema_key == TABLE[1].schema_key
    assert (told.ages, told.missed) == ([DAY + 2], 2)


def test_a_deleted_users_row_is_not_asked_for(store: StateStore) -> None:
    told = Told()
    online = Online(77, None, told.ages.append, told.miss)
    states = States(store, TABLE, LEARNING, online, deleted={"u01": DAY}.get)
    states.read("u01")
    assert told.missed == 0
    states.read("u02")
    assert told.missed == 1
    states.close()


@pytest.mark.parametrize("url", ["mongo:x", "sqlite:", "", "states.sqlite"])
def test_a_store_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected sqlite:PATH, redis://HOST:PORT/DB or unix://PATH"):
        open_store(url, 10)


def test_a_store_is_opened_by_its_scheme(tmp_path: Path) -> None:
    from serving.state.redis import RedisStore

    assert isinstance(open_store(f"sqlite:{tmp_path / 's'}", 10), SqliteStore)
    for url in ("redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", f"unix://{tmp_path / 'socket'}"):
        store = open_store(url, 10)
        assert isinstance(store, RedisStore)
        store.close()
