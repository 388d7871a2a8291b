"""What the demo shows is what was measured and answered."""

from io import StringIO

from rich.console import Console

from pipelines.demo import Clicked, click_table, metrics_table, typical
from tests.serving import tiny_bundle


def shown(renderable):
    console = Console(width=160, record=True, file=StringIO())
    console.print(renderable)
    return console.export_text()


def number(value, error=0.002):
    return {"value": value, "error": error}


def test_the_typical_user_is_the_one_with_the_middle_number_of_items():
    states = tiny_bundle.states()  # everybody has three: the order of ids decides
    assert typical(states) == "u06"


def test_metrics_stand_beside_popularity_with_the_error_of_the_difference():
    names = ("ndcg@10", "recall@100", "recall@1000", "mrr")
    judged = {
        "users": 1322,
        "recommenders": {"candidate": dict.fromkeys(names, number(0.3201)), "popularity": dict.fromkeys(names, number(0.1302))},
        "against": {"popularity": dict.fromkeys(names, number(0.1899))},
    }
    told = {"judged_days": 7, "cut": "2017-11-27", "protocols": {"all": judged, "new": judged}}
    sample = shown(metrics_table(told | {"users_judged": {"asked": 20_000, "of": 3_100_250}}))
    assert "20,000 of 3,100,250 users" in " ".join(sample.split())
    text = shown(metrics_table(told | {"users_judged": {"asked": 1322, "of": 1322}}))
    assert " of 1,322" not in text
    for part in ("1,322 users", "0.3201", "0.1302", "+0.1899", "0.0020", "2017-11-27"):
        assert part in text


def answer(*items):
    return {"items": [{"item_id": item, "reason": f"because of {item}"} for item in items]}


def test_the_click_table_tells_what_is_new_and_what_moved():
    clicked = Clicked("i050", answer("i001", "i002", "i003"), answer("i001", "i050", "i002"), 0.012)
    text = shown(click_table(tiny_bundle.catalogue(), clicked))
    assert "A click on THING 50, answered 12 ms later" in text
    assert "THING 50  (new)" in text
    assert "THING 2  (was 2)" in text
    assert "THING 1  (was" not in text
