"""What users may see: barred items leave every list, and a system that never repeats is judged by what is new."""

from dataclasses import replace

import numpy as np

from components.evaluation.metrics import NOTHING
from components.evaluation.visible import barred_items, deciding_protocol, protocols, without_barred
from serving.rules.specs import allowed, not_seen
from tests.serving import tiny_bundle


def test_items_are_barred_by_the_flags_of_the_systems_own_rules():
    # the tiny catalogue's last three are recalled, out of stock and blocked
    system = tiny_bundle.system()
    bare = replace(system, rules=(allowed(flag="blocked"),))
    assert np.flatnonzero(barred_items(bare, tiny_bundle.catalogue())).tolist() == [tiny_bundle.ITEMS - 1]
    assert not barred_items(replace(system, rules=()), tiny_bundle.catalogue()).any()


def test_barred_items_leave_a_list_and_the_rest_moves_up():
    barred = np.array([False, True, False, True])
    lists = np.array([[1, 0, 3, 2], [2, 0, NOTHING, NOTHING], [9, 1, 0, NOTHING]], np.int32)  # 9: an item this catalogue lacks
    assert without_barred(lists, barred).tolist() == [[0, 2, -1, -1], [2, 0, -1, -1], [9, 0, -1, -1]]


def test_a_system_that_never_repeats_is_judged_by_what_is_new_alone():
    system = replace(tiny_bundle.system(), rules=())
    assert (deciding_protocol(system), protocols(system)) == ("all", ("all", "new"))
    never = replace(system, rules=(not_seen(),))
    assert (deciding_protocol(never), protocols(never)) == ("new", ("new",))
