"""Every way of being a bad bundle, at the swapper of a worker: refused with the reason, which is in
the log, the metric and the answer, and the old bundle keeps serving."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.journal import GroupCommit, open_journal
from contract.store import LocalStore
from service.live import Live
from service.metrics import Metrics
from service.outward import outward
from service.settings import Settings
from service.swap import Swapper
from tests.conftest import live
from tests.contract.test_bundle import DAMAGES, edit_manifest


@pytest.fixture
def swapper(shelf: LocalStore, metrics: Metrics, tmp_path: Path) -> Iterator[tuple[Swapper, Live]]:
    """A worker that serves a good bundle."""
    uri = str(tmp_path / "journal.db")
    journal = open_journal(uri)
    store = LocalStore(tmp_path / "store")
    good = live(shelf)
    shutil.copytree(good, store.root / "bundles" / good.name)
    store.point("live", good.name)
    commits = GroupCommit(journal)
    followed = Live("live", journal, commits, metrics)
    settings = Settings(store=str(store.root), state=str(tmp_path / "state"))
    settings.runtime_directory().mkdir(parents=True)
    swapper = Swapper(store, settings, followed, uri, metrics)
    asyncio.run(swapper.follow())
    assert followed.version == good.name
    yield swapper, followed
    commits.close()
    journal.close()


def test_there_are_ways_enough() -> None:
    assert len(DAMAGES) >= 25


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__[7:])
def test_a_bad_bundle_is_refused_and_the_old_one_keeps_serving(
    swapper: tuple[Swapper, Live],
    metrics: Metrics,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], tuple[str, ...]],
) -> None:
    swap, followed = swapper
    store, good = LocalStore(tmp_path / "store"), followed.version
    assert good is not None
    bad = store.root / "bundles" / "bad"
    shutil.copytree(store.bundle(good), bad)
    edit_manifest(bad, lambda document: document.update(version="bad"))
    words = damage(bad)

    store.point("live", "bad")
    asyncio.run(swap.follow())

    assert followed.version == followed.state().snapshot.version == good
    assert followed.refusal
    assert followed.refusal.version == "bad"
    told = followed.refusal.reason
    outside = outward(Settings(store=str(store.root)))
    assert [word for word in words if outside(word) not in told] == []
    assert str(tmp_path) not in told
    assert "loading failed" not in told
    (line,) = [r.getMessage() for r in caplog.records if "bundle bad refused" in r.getMessage()]
    assert [word for word in (str(bad), *words, f"{good} keeps serving") if word not in line] == []
    refused = [
        sample.value
        for sample in next(iter(metrics.swaps.collect())).samples
        if sample.name.endswith("_total") and sample.labels["result"] == "refused"
    ]
    assert refused == [1.0]
