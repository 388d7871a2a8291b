"""A plan's numbers, worked out by hand, and a page that says of each where it is from."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.capacity import GIB, Assumed, BundleCost, measure, page, plan
from tests.serving import tiny_bundle

MEASURED = BundleCost(items=1_000_000, bytes_an_item=1024, bytes_a_user=512, retrieval_ms=1.9, ranking_ms=3.4, process_bytes=1)
ASSUMED = Assumed(cores=10, memory_gib=100, usable=0.5, busy=0.5, regions=3, copies=2, state_overhead=2, transport_ms=0.6, shard_ms=0.1)


def test_a_load_by_hand() -> None:
    # 4 shards of 50 GiB, 52,428,800 items each, 13.22 squared times those that cells were timed with; two regions carry 1000 requests/s
    items = 4 * 50 * GIB / 1024
    found = plan(MEASURED, ASSUMED, users=1e8, items=items, qps=1000)
    assert found.shards == 4
    shard_ms = 1.9 + 0.24 * (52_428_800 / 300_000) ** 0.5 + 0.1  # 5.173
    assert found.cpu_ms == pytest.approx(4.0 + 4 * shard_ms)
    assert found.retrieval == 3 * 4 * 2  # 500 * 5.173 ms = 2.59 cores, of 5 a machine: one, of which two copies
    assert found.ranking == 3 * 2  # 2 cores: one machine would do, two copies are kept
    assert found.states == 3 * 4  # 1e8 * 512 * 2 * 2 bytes = 190.7 GiB, of 50 a machine
    assert found.machines == 24 + 6 + 12
    assert found.dollars_a_month == pytest.approx(42 * (10 * 0.03 + 100 * 0.004) * 730)


def test_more_requests_take_more_replicas_and_no_more_shards_or_states() -> None:
    one, five = (plan(MEASURED, ASSUMED, 1e8, 1e9, times * 10_000) for times in (1, 5))
    assert (one.shards, one.states, one.cpu_ms) == (five.shards, five.states, five.cpu_ms)
    assert five.retrieval > 4 * one.retrieval


def test_a_small_catalogue_is_one_shard_and_costs_what_was_measured() -> None:
    found = plan(MEASURED, ASSUMED, users=10, items=1000, qps=1)
    assert found.shards == 1
    assert found.cpu_ms == pytest.approx(4.0 + 1.9 + 0.1)


def test_a_bundle_is_measured_and_every_number_of_the_page_says_where_it_is_from(tmp_path: Path) -> None:
    bundle = tiny_bundle.write_tiny(tmp_path / "tiny")
    tiny_bundle.states().save(tmp_path / "users")
    found = measure(tiny_bundle.system(), bundle, tmp_path / "users")
    assert found.items == tiny_bundle.ITEMS
    states = tiny_bundle.states()
    assert found.bytes_a_user == pytest.approx(np.mean([len(states[at].pack()) for at in range(len(states))]))
    assert found.retrieval_ms > 0 < found.ranking_ms
    text = page("tiny", replace(found, items=10), ASSUMED, 1e6, 1e5, 100)
    table = [line.split(" | ") for line in text.splitlines() if line.endswith(("| measured here |", "| assumed |"))]
    assert [name.strip("| ") for name, _, _ in table] == [one.name.replace("_", " ") for of in (BundleCost, Assumed) for one in fields(of)]
    assert "| requests a second | 100 | 500 |" in text
