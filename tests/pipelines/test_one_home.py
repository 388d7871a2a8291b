"""One home, several runs: two trainings at once both end well, and tables that shrank are refused with what to do about it."""

import subprocess
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.release.registry import open_registry
from tests.pipelines.chain import Chain

pytestmark = pytest.mark.slow
Ended = tuple[Chain, list["subprocess.CompletedProcess[str]"]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Two trainings of the same tables with two seeds, begun together."""
    chain = Chain.of(tmp_path_factory.mktemp("one"))
    return chain, chain.together(*(["train", "--data", str(chain.data), "--fast", "--seed", seed] for seed in ("0", "1")))


def test_two_trainings_at_once_both_end_well(both: Ended) -> None:
    chain, ended = both
    assert [one.returncode for one in ended] == [0, 0], [one.stderr[-2000:] for one in ended]
    with open_registry(chain.home, "") as client:
        versions = client.search_model_versions("name = 'shortlist-world'")
        champion = client.get_model_version_by_alias("shortlist-world", "champion")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    assert len({version.tags["bundle"] for version in versions}) == 2
    assert f"sha256:{champion.tags['bundle']}" == chain.champion  # what answers here is what the registry says
    assert {path.name for path in (chain.home / "bundles").iterdir()} == {version.tags["bundle"] for version in versions}
    for step in ("validate", "features"):  # what both needed was made once
        assert len([path for path in (chain.home / "steps" / step).iterdir() if path.is_dir()]) == 1


def test_shrunken_tables_are_refused_with_what_they_were_compared_with_and_accepted_on_demand(both: Ended, tmp_path: Path) -> None:
    chain, _ = both
    events = pq.read_table(chain.data / "events.parquet")
    few = events.filter(pc.less(pc.bit_wise_and(pc.cast(events["timestamp"], "int64"), 3), 1))  # a quarter, spread over all days
    assert 0 < len(few) < 0.4 * len(events)
    (chain.data / "events.parquet").unlink()
    pq.write_table(few, chain.data / "events.parquet")
    refused = chain.run("train", "--data", str(chain.data), "--fast")
    assert refused.returncode == 1
    assert f"They were compared with those of {chain.data} accepted on 20" in refused.stderr
    assert " UTC" in refused.stderr
    assert "start again with --accept" in refused.stderr
    fresh = ["materialize", "--data", str(chain.data), "--without-served"]
    assert chain.run(*fresh).returncode == 1  # whichever command reads them
    accepted = chain.run(*fresh, "--accept")
    assert accepted.returncode == 0, accepted.stderr
    trained = chain.run("train", "--data", str(chain.data), "--fast", "--accept")
    assert "NDCG@5" in trained.stdout, trained.stderr  # learnt and judged, whatever the gate then says of so few rows
