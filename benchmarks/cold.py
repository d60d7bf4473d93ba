"""`tandem bench cold`: how well a recipe finds items that training never saw, beside methods that
need no training."""

from pathlib import Path

from benchmarks import RECIPES
from benchmarks.table import Row
from offline.cold import cold_report
from offline.recipe import read_recipe


def measure(recipe: str, data: Path) -> list[Row]:
    """`recipe` is a name in the recipes folder; `data` a directory of tables. What is asked of the
    model is to find more cold items than any of its peers does."""
    read = read_recipe(RECIPES / f"{recipe}.toml")
    found = cold_report(read, data, "cpu", lambda _: None)
    best = {
        question: max(
            r.metrics["HR@50"] for r in found if r.question == question and r.method != read.model
        )
        for question in {row.question for row in found}
    }
    return [
        Row(
            f"{row.question}, {row.users:,} users, {row.method}: {metric}",
            value,
            "",
            at_least=best[row.question]
            if (row.method, metric) == (read.model, "HR@50") and row.question.startswith("cold")
            else None,
        )
        for row in found
        for metric, value in row.metrics.items()
        if metric in ("HR@10", "HR@50", "NDCG@50")
    ]
