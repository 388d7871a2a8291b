"""What is packed, judged and registered gets the last cut, and all that is read there."""

from pathlib import Path

import pytest

from components.moved import last_cut, last_sources


def written(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def told(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_of_the_features_the_last_cut_moves_on_with_what_it_is_judged_by(tmp_path: Path) -> None:
    cuts = [f"cuts/2017-11-{day}/{name}" for day in (13, 20, 27) for name in ("users/ids", "item_table/ids", "labels.parquet")]
    made = written(tmp_path / "out", "features.json", "item_stats.parquet", "feast/registry.db", "judged/2017-12-04/labels.parquet", *cuts)
    last_cut(made, tmp_path / "last")
    assert told(tmp_path / "last") == {"features.json", "judged/2017-12-04/labels.parquet", *cuts[6:]}
    assert (tmp_path / "last" / cuts[6]).samefile(made / cuts[6])  # no second copy on one machine
    last_cut(made, tmp_path / "last")  # done again, as after an interruption
    assert told(tmp_path / "last") == {"features.json", "judged/2017-12-04/labels.parquet", *cuts[6:]}


@pytest.mark.parametrize("with_towers", [True, False])
def test_of_retrieval_the_last_sources_move_on_with_the_last_towers(tmp_path: Path, with_towers: bool) -> None:
    towers = ["towers/2017-11-20.pt", "towers/2017-11-27.pt"] if with_towers else []
    made = written(
        tmp_path / "out", "retrieval.json", "cuts/2017-11-20/sources/linear/top", "cuts/2017-11-27/sources/linear/top",
        *towers, *(["towers/2017-11-13.pt"] if with_towers else []),
    )  # fmt: skip
    last_sources(made, tmp_path / "last")
    assert told(tmp_path / "last") == {"retrieval.json", "cuts/2017-11-27/sources/linear/top", *towers}
