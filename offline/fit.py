"""From a recipe and tables to a run: prepare, train, evaluate, save."""

from collections.abc import Callable
from pathlib import Path

from offline import attributes, distribute
from offline.checkpoint import Epoch
from offline.data.dataset import Dataset, prepare, read_seq
from offline.data.tables import read_tables
from offline.evaluate import KS, embed, ranks
from offline.metrics import ranking_metrics
from offline.recipe import Recipe
from offline.run import Description, Run, require_replaceable, save_run
from offline.train import train


def fit(
    recipe: Recipe,
    tables: Path,
    out: Path,
    device: str,
    say: Callable[[str], None],
    resume: bool = False,
) -> Run:
    """Train the recipe on the tables in a directory and write the run to `out`.

    The state after each epoch is kept beside the run until that is complete. With `resume` training
    goes on from there; without it, what a stopped training left is thrown away. `say` gets one line
    of progress at a time. Raises what `train` raises.
    """
    with distribute.group(device):
        if not distribute.leads():
            return _fit(recipe, tables, out, device, lambda line: None)
        require_replaceable(out)
        _begin(kept(out), resume, say)
        run = _fit(recipe, tables, out, device, say)
        save_run(out, run.description, run.dataset, run.model)
        kept(out).unlink()
        return run


def _begin(keep: Path, resume: bool, say: Callable[[str], None]) -> None:
    keep.parent.mkdir(parents=True, exist_ok=True)
    if not resume and keep.exists():
        say(f"{keep}: left by a training that was stopped, deleted; --resume would go on from it")
        keep.unlink()
    if resume:
        say(f"goes on from {keep}" if keep.exists() else f"no {keep}: starts at the beginning")


def _fit(recipe: Recipe, tables: Path, out: Path, device: str, say: Callable[[str], None]) -> Run:
    """The run, not written yet."""
    distribute.meet()  # the leader has begun
    dataset = prepare_recipe(recipe, tables)
    items, users = len(dataset.item_ids), len(dataset.user_ids)
    say(f"{len(dataset.sequences.items):,} interactions, {users:,} users, {items:,} items")

    def report(epoch: Epoch) -> None:
        say(
            f"epoch {epoch.epoch:>3}  loss {epoch.loss:.4f}  "
            f"validation {recipe.training.watch} {epoch.score:.4f}  {epoch.seconds:.1f} s"
        )

    trained = train(recipe, dataset, device, report, kept(out))
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
    return Run(out, description, dataset, trained.model)


def kept(out: Path) -> Path:
    """Where the state of a training that will write the run `out` is kept."""
    return out.with_name(f".{out.name}.checkpoint")


def prepare_recipe(recipe: Recipe, tables: Path) -> Dataset:
    """Raises DataError also where the attributes of the recipe could not be published later."""
    features = recipe.features
    dataset = prepare(
        read_tables(tables),
        features.users,
        features.items,
        recipe.history_length,
        seq=read_seq(tables),
        kinds=recipe.events,
        histories=recipe.histories,
    )
    attributes.index(recipe, dataset)
    return dataset
