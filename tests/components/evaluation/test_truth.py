"""The judged days are read from labels by name, and what a user had before is told from what is new."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluation.truth import new_target, read_truth
from serving.state.user_state import NEVER
from tests.serving import tiny_bundle


def features(folder, labels):
    """A features folder of one cut, with (user, item) labels."""
    cut = folder / "cuts" / "2024-10-04"
    tiny_bundle.catalogue().save(cut / "item_table")
    tiny_bundle.states().save(cut / "users")
    columns = list(zip(*labels, strict=True)) or [(), ()]
    table = {"user_id": pa.array(columns[0], pa.string()), "item_id": pa.array(columns[1], pa.string()), "count": [1] * len(labels)}
    pq.write_table(pa.table(table), cut / "labels.parquet")
    (folder / "features.json").write_text(json.dumps({"cuts": [{"cut": "2024-10-04"}]}))
    return folder


def test_targets_are_rows_of_the_item_table_and_old_items_are_no_discovery(tmp_path):
    # u02 has had items 2, 14, 26; u05 nothing of these; an item the catalogue lacks stays in the target as a sure miss
    truth = read_truth(features(tmp_path, [("u05", "i002"), ("u02", "i014"), ("u02", "i100"), ("u02", "unheard of")]))
    assert truth.users.tolist() == [2, 5]
    pairs = list(zip(truth.target.users.tolist(), truth.target.items.tolist(), strict=True))
    assert pairs[:3] == [(1, 2), (0, 14), (0, 100)]
    assert pairs[3][1] >= tiny_bundle.ITEMS
    assert sorted(truth.had.items[truth.had.users == 0].tolist()) == [2, 14, 26]
    assert (truth.target.strata, truth.of) == (None, 2)
    fresh = new_target(truth)
    assert list(zip(fresh.users.tolist(), fresh.items.tolist(), strict=True)) == [pairs[0], *pairs[2:]]


def test_rivals_lists_of_discoveries_hold_neither_what_was_had_nor_what_was_hidden(tmp_path):
    truth = read_truth(features(tmp_path, [("u05", "i002"), ("u02", "i014")]))
    assert truth.out is truth.had  # nobody hid anything
    ends = (np.arange(len(truth.states)) >= 2).astype(np.int64)  # u02 hid i100
    told = {"said_keys": truth.catalogue.keys[[100]], "said_days": np.ones(1), "said": np.array([NEVER], np.uint8)}
    hiding = replace(truth, states=replace(truth.states, said_ends=ends, **told))
    pairs = {
        which: sorted(zip(of.users.tolist(), of.items.tolist(), strict=True)) for which, of in (("out", hiding.out), ("had", truth.had))
    }
    assert pairs["out"] == sorted([*pairs["had"], (0, 100)])


def test_of_too_many_users_some_of_every_stratum_are_judged_with_all_that_is_theirs(tmp_path):
    pairs = [(f"u{user:02}", f"i{(user * 7 + step) % 240:03}") for user in range(12) for step in (0, 12, 40)]
    whole = read_truth(features(tmp_path, pairs))
    some = read_truth(tmp_path, most=6)
    assert (len(whole.users), some.of) == (12, 12)
    drawn = np.flatnonzero(np.isin(whole.users, some.users))
    assert len(drawn) == len(some.users) == 6
    for place, user in enumerate(drawn.tolist()):
        for mine, all_of in ((some.target, whole.target), (some.had, whole.had)):
            assert sorted(mine.items[mine.users == place].tolist()) == sorted(all_of.items[all_of.users == user].tolist())
    strata = some.target.strata
    assert (strata.sizes / np.maximum(strata.drawn, 1))[strata.of].sum() == pytest.approx(12)
    assert new_target(some).strata is strata
    assert read_truth(tmp_path, most=6).users.tolist() == some.users.tolist()  # the same each time


def test_a_week_without_events_cannot_be_judged_and_says_so(tmp_path):
    with pytest.raises(ValueError, match="no events in the days after 2024-10-04"):
        read_truth(features(tmp_path, []))


def test_labels_of_a_user_without_a_state_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="'stranger', whom its states lack"):
        read_truth(features(tmp_path, [("u05", "i002"), ("stranger", "i002")]))
