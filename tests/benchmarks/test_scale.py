from benchmarks import scale


def test_preparation_and_an_epoch_run_in_a_process_of_their_own() -> None:
    rows = scale.measure(400)

    whats = [row.what.partition(": ")[2] for row in rows]
    _, prepared, speed, peak = (row.measured for row in rows)
    assert whats == [
        "preparation",
        "preparation, peak memory",
        "DSSM as in dssm-ml1m.toml, one epoch",
        "and all, peak memory",
    ]
    assert 0.1 < prepared <= peak < 1.5
    assert speed > 0
    assert rows[-1].at_most == 6.0
