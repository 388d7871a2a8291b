"""Memory is moved to large pages as it is: what is asked for is this process's own, in whole large pages, and keeps its content."""

from pathlib import Path

import numpy as np
import pytest

from serving.worker.memory import _LARGE, _own_memory, use_large_pages

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="this system does not tell where memory lies")


def test_only_whole_large_pages_of_own_memory_are_asked_for_and_keep_their_content() -> None:
    large, small = np.arange(2_000_000), [np.arange(number, number + 60_000) for number in range(50)]  # 16 MB, and half a megabyte each
    sums, inside = [part.sum() for part in (large, *small)], large.ctypes.data + large.nbytes // 2
    ranges = list(_own_memory())
    assert all(begin % _LARGE == end % _LARGE == 0 and begin < end for begin, end in ranges)
    assert any(begin <= inside < end for begin, end in ranges)
    use_large_pages()
    assert [part.sum() for part in (large, *small)] == sums


def test_mapped_files_are_left_where_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.zeros(2_000_000))
    mapped = np.load(tmp_path / "table.npy", mmap_mode="r")
    inside = mapped.ctypes.data + mapped.nbytes // 2
    assert not any(begin <= inside < end for begin, end in _own_memory())
