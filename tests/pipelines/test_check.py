"""The check says in a sentence each what a system can and cannot use of given tables, and exits 1 when it could not learn."""

from dataclasses import replace
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from components.data.facts import facts_of
from components.data.ingest import ingest
from pipelines.check import _about_columns, _about_events, _about_rules, _about_sources, _about_users, findings
from pipelines.cli import app
from pipelines.new import choose, system_file
from serving.event_meanings import Never
from serving.system import SourceSpec, load_system
from tests.world.plain import END, plain, write

SHOP = load_system("shop")


def facts(rows, folder):
    ingest(SHOP, folder / "given", write(rows, folder / "data"))
    return facts_of(folder / "given")


def written(rows, folder, name="mine"):
    """The system that `shortlist new` would write."""
    path = folder / f"{name}.py"
    path.write_text(system_file(name, choose(facts(rows, folder))))
    return path


def texts(found):
    return [finding.text for finding in found]


def test_a_rule_without_its_level_is_named(tmp_path):
    rows = plain()
    for row in rows["items"]:
        row["category"] = row["category"].partition(" > ")[0]
    found = texts(_about_rules(SHOP, facts(rows, tmp_path)))
    assert "at_most per category: no item has a second level; it counts by the level above" in found
    assert "at_least newer_than_days: no item has created_at, so none is new" in found
    assert any(text.startswith("in_stock: no item has policy_flags") for text in found)


def test_a_rule_of_categories_where_there_are_none_never_applies(tmp_path):
    rows = plain()
    rows["items"] = [{"item_id": row["item_id"], "created_at": END - timedelta(days=3)} for row in rows["items"]]
    found = texts(_about_rules(SHOP, facts(rows, tmp_path)))
    assert "at_most per category: no item has a second level; no item has a category, so it never applies" in found
    assert not any("created_at" in text for text in found)


def test_sources_without_anything_to_work_on_are_named(tmp_path):
    rows = plain()
    seen = set()
    rows["events"] = [e for e in rows["events"] if (e["user_id"], e["item_id"]) not in seen and not seen.add((e["user_id"], e["item_id"]))]
    assert texts(_about_sources(SHOP, facts(rows, tmp_path))) == [
        "buy_again: 0.0% of purchase are of an item the user had before",
        "category_promotion: the table context plans nothing, so no item is promoted",
    ]
    planned = {"item_id": "i1", "place": "r0", "valid_from": END - timedelta(days=7), "valid_until": END}
    assert texts(_about_sources(SHOP, facts({**plain(), "context": [planned]}, tmp_path / "more"))) == []


class Picky:
    """A source of one's own that says what it lacks."""

    load = retrieve = reason = with_new_items = print

    @classmethod
    def lacks(cls, given):
        return f"{given.planned} rows of {given.positives} are not enough"


def test_a_source_of_ones_own_says_what_it_lacks_and_one_that_is_not_there_stops(tmp_path):
    kinds = (f"{__name__}:Picky", "linear", f"{__name__}:Gone", "no_such_kind")
    system = replace(SHOP, sources=tuple(SourceSpec(kind, 0.25) for kind in kinds))
    found = list(_about_sources(system, facts(plain(), tmp_path)))
    assert [finding.kind for finding in found] == ["unused", "stops", "stops"]
    assert found[0].text == f"{kinds[0]}: 0 rows of ('purchase',) are not enough"
    assert "has no 'Gone'" in found[1].text
    assert "no source 'no_such_kind'" in found[2].text


def test_every_event_type_is_accounted_for(tmp_path):
    rows = plain(types=("purchase", "click", "impression", "video_view"))
    count = len(rows["events"]) // 4
    found = texts(_about_events(SHOP, facts(rows, tmp_path)))
    assert f"{count:,} purchase: learnt from" in found
    assert f"{count:,} click: not learnt from; sent to a server, they move the user's next lists (0.6)" in found
    assert f"{count:,} video_view: not used; name it in the system's `events` to give it a meaning" in found
    assert len(found) == 4


def test_a_type_of_ones_own_is_used_as_the_schemas_are(tmp_path):
    rows = plain(types=("order", "view_item"))
    system = load_system(str(written(rows, tmp_path)))
    bought, seen = texts(_about_events(system, facts(rows, tmp_path)))
    assert bought.endswith("order: learnt from")
    assert "view_item: not learnt from; sent to a server, they move the user's next lists" in seen


def test_columns_without_a_value_are_named(tmp_path):
    (users,) = [text for text in texts(_about_columns(facts(plain(), tmp_path))) if text.startswith("users")]
    assert users == "users: nothing in age_band, income_band, household, created_at; what is made of them stays empty"


def test_a_sound_shop_says_what_it_is_judged_on(tmp_path):
    folder = write(plain(), tmp_path / "data")
    found = list(findings("shop", folder))
    assert not [finding for finding in found if finding.kind == "stops"]
    assert any("judged on" in text and text.endswith("of 40 users in the 7 days after") for text in texts(found))


def test_a_cut_with_few_days_after_it_says_how_many_there_are(tmp_path):
    found = texts(findings("shop", write(plain(), tmp_path / "data"), (END - timedelta(days=3)).isoformat()))
    assert any(text.endswith("users in the 3 days after, 3 of the 7 that a target has") for text in found)


@pytest.mark.parametrize(
    ("types", "said"),
    [(("click", "product_view"), "this system learns from purchase"), (("view_item", "purchase"), "view_item")],
)
def test_what_stops_the_learning_stops_the_check(tmp_path, types, said):
    folder = write(plain(types=types), tmp_path / "data")
    result = CliRunner().invoke(app, ["check", "shop", "--data", str(folder)])
    assert result.exit_code == 1
    assert said in result.output


def test_clicks_alone_become_what_the_written_system_learns_from(tmp_path):
    path = written(plain(types=("click", "product_view")), tmp_path)
    system = load_system(str(path))
    assert system.learning.positives == ("click",)
    assert system.learning.session_weights == {"product_view": 0.3}
    assert not [finding.text for finding in findings(str(path), tmp_path / "data") if finding.kind == "stops"]


def test_own_names_are_given_a_meaning(tmp_path):
    path = written(plain(types=("purchase", "view_item", "remove_from_cart", 'it\'s "odd"')), tmp_path)
    system = load_system(str(path))
    assert system.learning.positives == ("purchase",)
    assert {name: meaning.kind for name, meaning in system.events.items()}["remove_from_cart"] == "ignored"
    assert 'it\'s "odd"' in system.event_types
    assert not [finding.text for finding in findings(str(path), tmp_path / "data") if finding.kind == "stops"]


def test_ratings_are_liked_from_the_middle_one_on(tmp_path):
    rows = plain(types=("rating",))
    seen = set()
    rows["events"] = [e for e in rows["events"] if (e["user_id"], e["item_id"]) not in seen and not seen.add((e["user_id"], e["item_id"]))]
    for number, event in enumerate(rows["events"]):
        event["value"] = float(1 + number % 5)
    system = load_system(str(written(rows, tmp_path)))
    assert (system.events["rating"].value, system.events["rating"].at_least) == ("stars", 3)
    assert [rule.kind for rule in system.rules] == ["in_stock", "not_recalled", "at_most", "not_seen"]
    assert system.kinds == ("linear", "two_tower", "trending")


def test_rare_purchases_are_not_what_a_site_of_clicks_learns_from(tmp_path):
    rows = plain(types=("click",))
    rows["events"] += [{**event, "event_id": f"p{n}", "event_type": "purchase"} for n, event in enumerate(rows["events"][:9])]
    system = load_system(str(written(rows, tmp_path)))
    assert system.learning.positives == ("click", "purchase")  # both say liking; the clicks are what there is enough of


def test_new_writes_a_file_once_and_says_what_is_next(tmp_path):
    folder = write(plain(), tmp_path / "data")
    command = ["new", "corner_shop", "--data", str(folder), "--out", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"shortlist check {tmp_path / 'corner_shop.py'} --data {folder}" in result.output
    assert load_system(str(tmp_path / "corner_shop.py")).kinds == ("buy_again", "linear", "two_tower", "trending")
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert "is there already" in again.output
    odd = CliRunner().invoke(app, ["new", "my shop", "--data", str(folder), "--out", str(tmp_path)])
    assert "for example my_shop" in odd.output


def test_a_grade_below_the_middle_says_that_the_item_was_had_where_nothing_is_had_twice(tmp_path):
    rows = plain()
    items = [row["item_id"] for row in rows["items"]]
    pairs = [(f"u{user}", item) for user in range(60) for item in items][: len(rows["events"])]
    users = [rows["users"][0] | {"user_id": f"u{user}"} for user in range(60)]
    events = [
        row | {"event_type": "rating", "value": float(1 + at % 5), "user_id": user, "item_id": item}
        for at, (row, (user, item)) in enumerate(zip(rows["events"], pairs, strict=False))
    ]
    system = load_system(str(written(rows | {"events": events, "users": users}, tmp_path)))
    assert system.events["rating"].below == Never()


def test_sessions_are_told_from_users_who_come_back(tmp_path):
    """A visit's id in the user's place is a session; a device's, of weeks, is a user."""
    visits = plain()
    visits["events"] = [event | {"user_id": event["session_id"]} for event in visits["events"]]
    del visits["users"]
    assert facts(visits, tmp_path / "visits").sessions
    devices = plain()
    devices["events"] = [event | {"session_id": event["user_id"]} for event in devices["events"]]
    assert not facts(devices, tmp_path / "devices").sessions
    assert not facts(plain(), tmp_path / "users").sessions
    system = load_system(str(written(visits, tmp_path / "new")))
    assert system.learning.asked == "amid sessions"
    told = texts(_about_users(SHOP, facts(visits, tmp_path / "told")))
    assert 'say Learning(asked="amid sessions")' in told[0]
    assert 'say Learning(asked="users")' in texts(_about_users(system, facts(devices, tmp_path / "other")))[0]


def test_a_short_log_is_asked_about_fewer_days(tmp_path):
    rows = plain(weeks=2)
    system = load_system(str(written(rows, tmp_path)))
    assert (system.learning.horizon_days, system.learning.every_days) == (2, 2)
