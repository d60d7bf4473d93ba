"""The rows of the filter benchmark: recall and k of k hold for every planted filter."""

from benchmarks import filters


def test_filters_of_all_shares_are_measured_and_lose_nothing() -> None:
    rows = {row.what: row for row in filters.measure(1_000)}

    for name in ("spread", "cluster", "rank"):
        for share in ("10.0%", "1.0%", "0.1%"):
            label = f"1,000 items, {name} {share}:"
            recall, full = rows[f"{label} recall@50"], rows[f"{label} answers with k of k"]
            assert (recall.at_least, recall.holds) == (0.97, True)
            assert (full.at_least, full.holds) == (1.0, True)
            scored = rows[f"{label} scored without the index"].measured
            assert scored == (0 if share == "10.0%" else 1)
            ratio = rows[f"{label} p50 over that without a filter"].measured
            plain = rows["1,000 items, no filter: p50"].measured
            assert ratio == rows[f"{label} p50"].measured / plain
