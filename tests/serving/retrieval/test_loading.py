"""A system's sources are loaded by kind."""

from pathlib import Path

import numpy as np
import pytest

from feature_repo.names import TAUS_DAYS
from serving.bundle.arrays import BadFolder
from serving.retrieval.interest import mix_for
from serving.retrieval.linear import linear
from serving.retrieval.sources import UnknownSource, load_sources
from serving.system import SourceSpec
from tests.components.retrieval.worlds import catalogue


def test_an_unknown_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownSource, match="no source 'oracle'"):
        load_sources([SourceSpec("oracle", 1.0)], tmp_path, catalogue(["a"]))


def test_a_folder_that_was_not_fitted_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFolder, match="linear"):
        load_sources([linear(share=1.0)], tmp_path, catalogue(["a"]))


@pytest.mark.parametrize("tau_days", [20.0, 60.0, 90.0, 120.0])
def test_any_decay_is_near_to_a_mix_of_those_kept(tau_days: float) -> None:
    ages = np.arange(200)
    mixed = np.exp(-ages[:, None] / np.array(TAUS_DAYS)) @ np.array(mix_for(tau_days))
    assert np.abs(mixed - np.exp(-ages / tau_days)).max() < 0.05


def test_a_kept_decay_is_taken_as_it_is() -> None:
    assert mix_for(60.0) == (0.0, 0.0, 1.0, 0.0)
