from pathlib import Path

import numpy as np
import polars as pl
import pytest

from offline.evaluate import embed, ranks
from offline.metrics import ranking_metrics
from offline.report import Report, evaluate_run, write_ranked
from offline.run import Run

KS = (10, 50)


@pytest.fixture(scope="module")
def report(run: Run) -> Report:
    return evaluate_run(run, "test", KS, "exact")


def test_the_exact_metrics_are_those_that_the_run_measured(run: Run, report: Report) -> None:
    measured = run.description.metrics

    assert {name: report.exact[name] for name in measured} == measured
    assert report.through == measured


def test_an_approximate_index_ranks_about_as_the_exact_one(run: Run, report: Report) -> None:
    approximate = evaluate_run(run, "test", KS, "faiss_hnsw")

    assert approximate.exact == report.exact
    assert approximate.through == pytest.approx(report.through, abs=0.02)


def test_the_lists_make_the_catalogue_metrics(run: Run, report: Report) -> None:
    shown = set(report.ranking.lists[:, :10].ravel().tolist())

    assert report.exact["Coverage@10"] == len(shown) / (run.dataset.counts() > 0).sum()
    assert report.exact["Novelty@10"] < report.exact["Novelty@50"]
    assert report.exact["Gini@10"] > report.exact["Gini@50"]


def test_the_buckets_add_up_to_the_whole(report: Report) -> None:
    buckets = report.buckets.values()
    hits = sum(b.targets * b.metrics["HR@10"] for b in buckets if b.targets)

    assert sum(bucket.targets for bucket in buckets) == 300
    assert hits / 300 == pytest.approx(report.exact["HR@10"])
    assert sum(bucket.items for bucket in buckets) == 200


def test_the_validation_target_is_the_one_before_the_last(run: Run) -> None:
    report = evaluate_run(run, "validation", (10,), "exact")

    own = ranks(embed(run.model, run.dataset), run.dataset, "validation")
    assert report.figures()["exact"]["HR@10"] == ranking_metrics(own, (10,))["HR@10"]


def test_the_figures_are_all_numbers_by_name(report: Report) -> None:
    figures = report.figures()

    assert figures["buckets"]["head"]["targets"] == report.buckets["head"].targets
    assert figures["buckets"]["head"]["NDCG@50"] == report.buckets["head"].metrics["NDCG@50"]
    assert figures["similarities"]["nearest"]["50%"] == np.median(report.similarities.nearest)
    assert set(figures["similarities"]["random"]) == {"5%", "50%", "95%"}


def test_the_ranked_file_has_every_user_and_the_ids_of_the_list(
    run: Run, report: Report, tmp_path: Path
) -> None:
    write_ranked(run, report.ranking, tmp_path / "ranked.parquet")

    table = pl.read_parquet(tmp_path / "ranked.parquet")
    assert table["user_id"].to_list() == run.dataset.user_ids
    assert [[run.dataset.item_ids.index(i) for i in line] for line in table["ranked"][:20]] == (
        report.ranking.lists[:20].tolist()
    )
