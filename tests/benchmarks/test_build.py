"""The world of the benchmarks, and how much of a bundle the workers share."""

import mmap
import os
from pathlib import Path

from benchmarks import build
from benchmarks.memory import descendants, forget_peak, mapped_bytes, peak_bytes
from benchmarks.world import USERS, world
from offline.run import load_run


def test_a_world_has_a_model_that_was_never_trained() -> None:
    with world(300) as made:
        run = load_run(made.run.path)

        assert run.description.epochs == ()
        assert (len(run.dataset.item_ids), len(run.dataset.user_ids)) == (300, USERS)
        assert made.store.versions() == []


def test_a_bundle_is_built_loaded_and_shared_by_four_workers() -> None:
    rows = {row.what.partition(": ")[2]: row for row in build.measure(300)}

    assert rows["from process start to ready, warm, median of 3"].at_most == 2.0
    shared = rows["mapped by 4 workers, summed, over that of one"]
    assert shared.at_most == 1.15
    assert 0.8 < shared.measured < 1.2
    assert 0.5 < rows["mapped by one worker, over the bundle's size"].measured <= 1.0


def test_pages_of_the_files_under_a_directory_are_counted(tmp_path: Path) -> None:
    size = 64 * mmap.PAGESIZE
    (tmp_path / "inside").mkdir()
    kept = []
    for path in (tmp_path / "inside" / "file", tmp_path / "outside"):
        path.write_bytes(b"x" * size)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert mapped[:: mmap.PAGESIZE] == b"x" * 64
        kept.append(mapped)

    assert mapped_bytes([os.getpid()], tmp_path / "inside") == size
    assert mapped_bytes([os.getpid()], tmp_path) == 2 * size
    assert os.getpid() in descendants(os.getppid())


def test_the_peak_is_of_what_came_after_it_was_forgotten() -> None:
    # Not by the allocator of the process, which may keep what is freed.
    large = mmap.mmap(-1, 2**28)
    large.write(bytes(2**28))
    before = peak_bytes()
    large.close()
    forget_peak()

    # 256 MiB were given back; other memory of this process may have moved a little.
    assert before - peak_bytes() > 2**27
