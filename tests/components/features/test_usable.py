"""Too little to learn from or to judge by is said in a second; one row, one client, one quiet week decide for nobody else."""

import json
from dataclasses import replace
from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from components.features.build import build
from components.features.moments import BadMoment, last_day, moment
from components.features.usable import NotEnough, refuse_too_little, refuse_without_positives
from serving.event_meanings import Positive
from serving.system import load_system
from tests.world.plain import END, plain, write

SHOP = load_system("shop")
JUDGED = END - timedelta(days=7)


def tables(rows, folder):
    return write(rows, folder / "tables")


def asked(rows, folder, until="", system=SHOP):
    """The cut of `rows`, if there is enough at it."""
    written = tables(rows, folder)
    refuse_without_positives(system, written)
    cut = moment("shop", written, until)
    refuse_too_little(system, written, cut, must_judge=until != "end")
    return cut


def test_a_plain_shop_is_judged_on_its_last_week(tmp_path):
    assert asked(plain(), tmp_path) == JUDGED.isoformat()
    assert asked(plain(), tmp_path, "end") == END.isoformat()


def test_clicks_alone_are_named_with_how_to_learn_from_them(tmp_path):
    rows = plain(types=("click", "product_view"))
    count = len(rows["events"]) // 2
    with pytest.raises(NotEnough) as caught:
        asked(rows, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"this system learns from purchase; your events have click {count:,}, product_view {count:,}.")
    assert "shortlist new NAME --data DIR" in message
    assert 'events={"click": Positive()}' in message
    refuse_without_positives(replace(SHOP, events={"click": Positive()}), tmp_path / "tables")


@pytest.mark.parametrize(("days", "said"), [(1, "span 1 day;"), (5, "span 5 days;"), (14, "span 14 days;")])
def test_too_few_days_are_counted_and_what_is_needed_is_said(tmp_path, days, said):
    rows = plain()
    rows["events"] = [event for event in rows["events"] if event["timestamp"] >= END - timedelta(days=days)]
    with pytest.raises(NotEnough, match=f"your events {said} needed: more than 14"):
        asked(rows, tmp_path)


@pytest.mark.parametrize(("users", "until"), [(20, ""), (40, JUDGED.isoformat())])  # of forty, one is a straggler: the cut is asked for
def test_one_user_cannot_be_judged(tmp_path, users, until):
    rows = plain(users)
    rows["events"] = [event for event in rows["events"] if event["timestamp"] < JUDGED or event["user_id"] == "u3"]
    with pytest.raises(NotEnough, match=r"1 user has a purchase in the 7 days after 2025-02-24.*one user cannot be judged"):
        asked(rows, tmp_path, until)
    assert asked(rows, tmp_path, "end") == (END if users == 20 else JUDGED).isoformat()  # nobody is judged there


def test_an_until_with_nothing_after_it_is_named_before_anything_is_learnt(tmp_path):
    with pytest.raises(NotEnough, match="nothing to judge by: choose an earlier --until"):
        asked(plain(), tmp_path, "2025-03-03")
    with pytest.raises(BadMoment, match="is no moment"):
        asked(plain(), tmp_path, "next week")


def test_one_straggler_does_not_move_the_cut(tmp_path):
    rows = plain()
    rows["events"].append({**rows["events"][-1], "event_id": "late", "timestamp": END + timedelta(days=60)})
    assert asked(rows, tmp_path) == JUDGED.isoformat()
    rows["events"] += [{**rows["events"][-1], "event_id": f"again{n}"} for n in range(99)]  # nor does one busy client
    assert asked(rows, tmp_path) == JUDGED.isoformat()
    rows["events"] += [
        {**rows["events"][-1], "event_id": f"back{n}", "user_id": f"u{n}"} for n in range(5)
    ]  # a third of a day's users does
    assert asked(rows, tmp_path) == (JUDGED + timedelta(days=61)).isoformat()


@pytest.mark.parametrize(
    ("users", "last"), [([5], 0), ([1, 1, 1], 2), ([100, 90, 110, 1], 2), ([100, 90, 110, 11], 3), ([100, 90, 1, 2, 110, 95, 1, 1], 5)]
)
def test_the_last_day_is_one_of_the_usual_kind(users, last):
    assert last_day(users) == last


def test_quiet_weeks_are_left_out_said_and_earlier_ones_taken_instead(tmp_path, capsys):
    rows = plain(weeks=10)
    rows["events"] = [event for event in rows["events"] if not timedelta(days=7) <= END - event["timestamp"] < timedelta(days=22)]
    build(SHOP, tables(rows, tmp_path), tmp_path / "out", JUDGED, 3)
    report = json.loads((tmp_path / "out" / "features.json").read_text())
    assert [cut["cut"] for cut in report["cuts"]] == ["2025-01-20", "2025-01-27", "2025-02-03", "2025-02-24"]
    assert report["quiet_weeks"] == ["2025-02-10", "2025-02-17"]
    assert all(cut["labels"] for cut in report["cuts"])
    assert "Nothing was chosen in the weeks after 2025-02-10, 2025-02-17" in capsys.readouterr().out


def test_only_a_high_enough_value_is_liking(tmp_path):
    rows = plain(types=("rating",))
    for number, event in enumerate(rows["events"]):
        event["value"] = (1.0, 3.0, 4.0, 5.0, None)[number % 5]
    system = replace(SHOP, events={"rating": Positive(value="stars", at_least=4)})
    build(system, tables(rows, tmp_path), tmp_path / "out", END, 1)
    report = json.loads((tmp_path / "out" / "features.json").read_text())
    assert report["rows"]["positives"] == sum((event["value"] or 0) >= 4 for event in rows["events"])


def test_who_consents_to_counts_alone_is_counted_and_has_no_history_of_their_own(tmp_path):
    import numpy as np

    from serving.bundle.catalogue import Catalogue
    from serving.state.user_state import StateTable
    from tests.world.picks import ITEM_FEATURES

    rows = plain()
    build(SHOP, tables(rows, tmp_path / "all"), tmp_path / "all" / "out", JUDGED, 1)
    for row in rows["users"][:10]:
        row["consent"] = "aggregated"
    theirs = {row["user_id"] for row in rows["users"][:10]}
    build(SHOP, tables(rows, tmp_path / "some"), tmp_path / "some" / "out", JUDGED, 1)
    cut = "out/cuts/2025-02-24"
    tables_of = {name: Catalogue.load(tmp_path / name / cut / "item_table") for name in ("all", "some")}
    buyers = ITEM_FEATURES.index("item_buyers_all")
    assert np.array_equal(tables_of["all"].features[:, buyers], tables_of["some"].features[:, buyers])
    states = StateTable.load(tmp_path / "some" / cut / "users")
    for index in range(len(states)):
        state = states[index]
        assert bool(len(state.keys)) == (state.user_id not in theirs)
    assert not theirs & set(pq.read_table(tmp_path / "some" / cut / "labels.parquet")["user_id"].to_pylist())
