"""The benches of what is written online, small: every row is there, with its bar, and holds where
it does not speak of time."""

import pytest

from benchmarks import overlay, visible


def test_an_overlay_is_measured_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "SIZES", (1_000, 6_000))
    monkeypatch.setattr(overlay, "MOST", {6_000: 1.3})
    monkeypatch.setattr(overlay, "TURNS", 20)
    monkeypatch.setattr(overlay, "SECONDS", 0.05)

    rows = {row.what: row for row in overlay.measure(300)}

    ratios = [row for what, row in rows.items() if what.endswith("over no overlay")]
    assert [row.at_most for row in ratios] == [None, 1.3]
    recalls = [row for what, row in rows.items() if what.endswith("recall@50 of the overlay")]
    assert len(recalls) == 2
    assert all(row.holds and row.at_least == 0.99 for row in recalls)
    appends = [row for what, row in rows.items() if what.startswith("durable appends")]
    assert len(appends) == 3
    assert all(row.measured > 0 for row in rows.values() if "memory" not in row.what)


def test_what_one_worker_acknowledged_the_other_reads_at_once() -> None:
    stale, *times = visible.measure(300, 200)

    assert (stale.at_most, stale.holds) == (0, True)
    assert stale.what.startswith("300 items, 200 pairs over 2 workers")
    assert all(row.measured > 0 for row in times)
