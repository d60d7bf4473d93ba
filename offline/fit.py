"""From a recipe and tables to a run: prepare, train, evaluate, save."""

from collections.abc import Callable
from pathlib import Path

from offline.data.dataset import Dataset, prepare, read_seq
from offline.data.tables import read_tables
from offline.evaluate import KS, embed, ranks
from offline.metrics import ranking_metrics
from offline.recipe import Recipe
from offline.run import Description, Run, save_run
from offline.train import Epoch, train


def fit(recipe: Recipe, tables: Path, out: Path, device: str, say: Callable[[str], None]) -> Run:
    """Train the recipe on the tables in a directory and write the run to `out`.

    `say` gets one line of progress at a time.
    """
    dataset = prepare_recipe(recipe, tables)
    items, users = len(dataset.item_ids), len(dataset.user_ids)
    say(f"{len(dataset.sequences.items):,} interactions, {users:,} users, {items:,} items")

    def report(epoch: Epoch) -> None:
        k = recipe.training.recall_at
        say(
            f"epoch {epoch.epoch:>3}  loss {epoch.loss:.4f}  "
            f"validation recall@{k} {epoch.recall:.4f}  {epoch.seconds:.1f} s"
        )

    trained = train(recipe, dataset, device, report)
    found = ranks(embed(trained.model, dataset), dataset, "test")
    description = Description(
        recipe=recipe,
        features=dataset.schema,
        seq=dataset.seq,
        integer_ids=dataset.integer_ids,
        epochs=tuple(trained.history),
        samples_per_second=trained.samples_per_second,
        metrics=ranking_metrics(found, KS) if len(found) else {},
    )
    say(f"{trained.samples_per_second:,.0f} samples per second")
    return save_run(out, description, dataset, trained.model)


def prepare_recipe(recipe: Recipe, tables: Path) -> Dataset:
    features = recipe.features
    return prepare(
        read_tables(tables),
        features.users,
        features.items,
        recipe.history_length,
        seq=read_seq(tables),
    )
