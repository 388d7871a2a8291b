"""What a system file says of its heads, read, refused and kept."""

import json

import pytest

from serving.objectives import BadObjective, LabelEvent, Objective, as_settings, check_objectives, from_settings


@pytest.mark.parametrize(
    ("label", "asked", "counted"),
    [
        ("positive", "", (LabelEvent("positive"),)),
        ("first positive", "first", (LabelEvent("positive"),)),
        ("again purchase", "again", (LabelEvent("purchase"),)),
        ("like or survey >= 4", "", (LabelEvent("like"), LabelEvent("survey", 4.0))),
        ("watch>=30.5", "", (LabelEvent("watch", 30.5),)),
        ("first like  or  share", "first", (LabelEvent("like"), LabelEvent("share"))),
        ("firsthand", "", (LabelEvent("firsthand"),)),
    ],
)
def test_a_label_is_read(label, asked, counted):
    one = Objective(label, 1.0)
    assert (one.asked, one.counted) == (asked, counted)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Objective("", 1.0), "'' is no event"),
        (lambda: Objective("first", 1.0), "'' is no event"),
        (lambda: Objective("like or", 1.0), "is no event"),
        (lambda: Objective("watch >= long", 1.0), "'long' is no value"),
        (lambda: Objective("watch >= nan", 1.0), "value is nan, expected a finite number"),
        (lambda: Objective("watch >= inf", 1.0), "value is inf"),
        (lambda: Objective("watch", float("nan")), "'watch': weight is nan, expected a number of at least 0"),
        (lambda: Objective("watch", -1.0), "weight is -1"),
        (lambda: Objective("watch", 1.0, listwise=float("inf")), "listwise is inf"),
        (lambda: Objective("watch", 1.0, usual=0.0), "usual is 0, expected a number above 0"),
        (lambda: Objective("watch", 1.0, loss="hinge"), "loss is 'hinge', expected one of 'log-loss', 'weighted'"),
        (lambda: check_objectives({}, ("watch",)), "names no head of a weight above 0"),
        (lambda: check_objectives({"a": Objective("watch", 0.0)}, ("watch",)), "names no head of a weight above 0"),
        (lambda: check_objectives({"a": Objective("watched", 1.0)}, ("watch",)), "objective a: no event is of type 'watched'"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(made, told):
    with pytest.raises(BadObjective, match=told):
        made()


def test_a_bundle_keeps_heads_in_their_order():
    objectives = {"watch": Objective("watch", 0.5, loss="weighted", usual=300.0), "click": Objective("click", 0.2, listwise=0.1)}
    kept = json.loads(json.dumps(as_settings(objectives), sort_keys=True))
    assert list(from_settings(kept).items()) == list(objectives.items())


def test_the_first_bundles_said_weights_alone():
    found = from_settings({"discover": 0.3, "repeat": 0.7})
    assert list(found.items()) == [("repeat", Objective("again positive", 0.7)), ("discover", Objective("first positive", 0.3))]
