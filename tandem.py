"""Tandem's command line: the composition root of the verbs. Each verb imports what it needs."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contract.errors import BundleError, ExtraMissing, TandemError

if TYPE_CHECKING:
    from benchmarks.table import Row
    from contract.manifest import Check
    from offline.compact import Compacted
    from offline.evaluate import Target
    from offline.report import Report
    from service.doctor.finding import Finding

    Metrics = dict[str, float]

EXTRAS = {
    "torch": "offline",
    "polars": "offline",
    "onnx": "offline",
    "onnxscript": "offline",
    "matplotlib": "bench",
    "sklearn": "map",
    "umap": "map",
}

PIPE_WIDTH = 160

STORE = click.option("--store", required=True, help="Where bundles live: a path.")
CHANNEL = click.option(
    "--channel", default="live", show_default=True, help="Named pointer of the store to one bundle."
)
JOURNAL = click.option(
    "--journal",
    required=True,
    metavar="URI",
    envvar="TANDEM_JOURNAL",
    show_envvar=True,
    help="Of the service: journal.db in its state directory, or redis://host:port/0.",
)
BACKENDS = "exact, faiss_flat, faiss_ivf, faiss_ivfpq, faiss_hnsw, hnswlib, annoy or milvus"
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


class Verbs(click.Group):
    """Turns Tandem's errors into one line and exit code 1; click itself exits 2 on wrong use."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TandemError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            missing = _missing(str(ctx.invoked_subcommand), str(error.name), extra)
            raise click.ClickException(str(missing)) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _missing(verb: str, module: str, extra: str) -> ExtraMissing:
    return ExtraMissing(
        f"tandem {verb} needs {module}: pip install -c constraints.txt '.[{extra}]'"
    )


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tandem-recall", message="tandem %(version)s")
def main() -> None:
    """Tandem, online recall for recommender systems.

    \b
    The whole story on generated data:    tandem demo
    Step by step, on MovieLens-100K:
      tandem data ml-100k --out data/ml-100k
      tandem train recipes/dssm-ml100k.toml --data data/ml-100k --out runs/dssm
      tandem evaluate runs/dssm
      tandem publish runs/dssm --to store
      tandem serve --store store
      curl localhost:8000/v1/recommendations/1?k=10
    """
    # Two busy-waiting threads on a shared machine are many times slower than two sleeping ones.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # ONNX Runtime collects telemetry and keeps it in the home directory unless told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@main.command()
@click.argument("name", type=click.Choice(["ml-1m", "ml-100k", "synthetic"]))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory to write.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="Directory with the raw files; without it the official archive is downloaded.",
)
@click.option("--users", default=2000, show_default=True, help="synthetic: how many users.")
@click.option("--items", default=1000, show_default=True, help="synthetic: how many items.")
@click.option(
    "--interactions", default=100_000, show_default=True, help="synthetic: how many interactions."
)
@click.option("--seed", default=0, show_default=True, help="synthetic: seed of the generator.")
def data(
    name: str, out: Path, source: Path | None, users: int, items: int, interactions: int, seed: int
) -> None:
    """Write a data set as Tandem's three tables: interactions, items, users.

    Your own data needs no verb: put interactions.parquet (user_id, item_id, timestamp) and, if you
    have them, items.parquet and users.parquet into a directory and train on it. CSV works too.
    """
    from offline.data import movielens, synthetic
    from offline.data.tables import write_tables

    if name == "synthetic":
        tables = synthetic.generate(users, items, interactions, seed=seed).tables
    else:
        raw = source or _download(name, out)
        tables = movielens.read_movielens(name, raw)
    write_tables(tables, out)
    click.echo(f"{out}: {len(tables.interactions):,} interactions")


def _download(name: str, out: Path) -> Path:
    from offline.data import movielens
    from offline.progress import Progress

    with Progress(f"downloading {name}", 0) as progress:
        return movielens.download(name, out, progress=progress.to)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--data", "tables", required=True, type=click.Path(path_type=Path), help="The tables."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run to write.")
@click.option(
    "--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]), help="Where."
)
@click.option("--seed", type=int, help="Instead of the recipe's seed.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a recipe key.")
@click.option("--resume", is_flag=True, help="Go on with a training that was stopped.")
def train(
    recipe: Path,
    tables: Path,
    out: Path,
    device: str,
    seed: int | None,
    changes: Sequence[str],
    resume: bool,
) -> None:
    """Train a RECIPE on the tables in a directory and write the run.

    After each epoch the state of the training is kept beside the run, as .RUN.checkpoint, until the
    run is complete. A training that was stopped, by whatever, is gone on with by the same command
    and --resume: it ends with the same weights as one that never stopped.

    \b
      tandem train recipes/dssm-ml1m.toml --data data/ml-1m --out runs/dssm
      tandem train recipes/dssm-ml1m.toml --data data/ml-1m --out runs/short --set training.epochs=2
    """
    from offline import distribute
    from offline.fit import fit
    from offline.recipe import read_recipe

    changes = [*changes, *([f"seed={seed}"] if seed is not None else [])]
    run = fit(read_recipe(recipe, changes), tables, out, device, click.echo, resume)
    if distribute.leads():
        _show_metrics(run.description.metrics, "test")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--k", "ks", default="10,50,100,200", show_default=True, help="Depths, by commas.")
@click.option(
    "--target", default="test", type=click.Choice(["test", "validation"]), show_default=True
)
@click.option(
    "--backend",
    default="faiss_hnsw",
    show_default=True,
    metavar="NAME",
    help=f"Rank through this index too: {BACKENDS}.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
@click.option(
    "--ranked", type=click.Path(path_type=Path), help="Write every user's best items: Parquet."
)
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path),
    help="Write one page with charts and examples: HTML.",
)
@click.option(
    "--map",
    "projection",
    default="pca",
    show_default=True,
    type=click.Choice(["pca", "tsne", "umap"]),
    help="How the page draws the item vectors on a plane.",
)
def evaluate(
    run: Path,
    ks: str,
    target: "Target",
    backend: str,
    json_file: Path | None,
    ranked: Path | None,
    page: Path | None,
    projection: str,
) -> None:
    """Rank the whole catalogue for every user of a RUN and measure, exactly and through an index.

    The target is each user's last interaction (test) or the one before it (validation); items that
    the user had already seen are left out. Head, torso and tail are the targets by popularity: a
    third of the training interactions each.

    \b
      tandem evaluate runs/dssm --report dssm.html
    """
    from offline.page import write_page
    from offline.projection import load_projection
    from offline.report import evaluate_run, write_ranked
    from offline.run import load_run

    depths, project = _depths(ks), load_projection(projection)
    loaded = load_run(run)
    report = evaluate_run(loaded, target, depths, backend)
    if ranked:
        write_ranked(loaded, report.ranking, ranked)
    if json_file:
        _write_json(json_file, report.figures())
    if page:
        write_page(loaded, report, page, project)
    _show_report(report)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", "store", required=True, help="The store: a path.")
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help=f"The index: {BACKENDS}; auto takes the fastest.",
)
@click.option(
    "--target-recall",
    default=0.99,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the true nearest items that the index must find for real users.",
)
@click.option(
    "--k",
    default=50,
    show_default=True,
    type=click.IntRange(1),
    help="Among the first k: give the most that your requests ask for.",
)
@CHANNEL
@click.option(
    "--force",
    is_flag=True,
    help="Publish although the gate refuses; not what no service would open. The manifest says so.",
)
def publish(
    run: Path, store: str, backend: str, target_recall: float, k: int, channel: str, force: bool
) -> None:
    """Export, index and check a RUN, and let a channel of the store point at the bundle.

    The index is tuned: the least search effort that reaches the target recall. Backend 'auto' tries
    those that suit the size of the catalogue and takes the fastest.

    A bundle is refused, with the reason and nothing written, when it has NaN or repeated ids, when
    an exported tower differs from the trained one, when the index misses too many neighbours, or
    when its offline metrics are clearly below those of the live bundle.
    """
    from contract.errors import GateError
    from contract.store import open_store
    from offline.build import IndexChoice
    from offline.publish import publish as publish_run
    from offline.run import load_run

    choice = IndexChoice(backend, recall=target_recall, k=k)
    try:
        manifest = publish_run(load_run(run), open_store(store), channel, choice, force=force)
    except GateError as error:
        _show_gate(error.checks)
        raise
    _show_gate(manifest.gate)
    click.echo(manifest.index.why)
    click.echo(f"bundle {manifest.version} is what channel '{channel}' of {store} points at")


@main.command()
@STORE
@CHANNEL
@click.option("--to", "version", help="A version; default: what the channel pointed at before.")
def rollback(store: str, channel: str, version: str | None) -> None:
    """Point a channel at an earlier bundle; running services follow within a second."""
    from contract import channels
    from contract.store import open_store

    pointed = channels.rollback(open_store(store), channel, version)
    click.echo(f"channel '{channel}' of {store} points at {pointed.version}")


@main.command()
@STORE
@JSON
def bundles(store: str, as_json: bool) -> None:
    """List the bundles of a store, and which channel points at which.

    The last column says 'forced' of a bundle that was published although the gate refused it, and
    what is wrong with one whose manifest cannot be read; in JSON this is its 'problem', instead of
    what the manifest says. JSON also has the metrics, and as 'gate' what the gate measured.
    """
    from contract.store import open_store

    opened = open_store(store)
    pointing = opened.channels()
    rows = [
        {
            "version": version,
            "channels": [name for name, c in pointing.items() if c.version == version],
            **_described(opened.bundle(version)),
        }
        for version in opened.versions()
    ]
    if as_json:
        _print_json(rows)
        return
    columns = ("version", "channels", "model", "backend", "items", "users", "created_at")
    _table(
        (*columns, ""), [[*(_cell(row.get(c, "")) for c in columns), _note(row)] for row in rows]
    )


def _described(bundle: Path) -> dict[str, Any]:
    from contract.manifest import read_manifest

    try:
        m = read_manifest(bundle)
    except BundleError as error:
        return {"problem": str(error)}
    return {
        "model": m.model,
        "backend": m.index.backend,
        "items": m.dims.items,
        "users": m.dims.users,
        "metrics": m.metrics,
        "created_at": m.created_at.isoformat(),
        "gate": [check.model_dump() for check in m.gate],
        "forced": m.forced,
    }


def _note(row: dict[str, Any]) -> str:
    problem: str | None = row.get("problem")
    return problem or ("forced" if row["forced"] else "")


class Serve(click.Command):
    """Reads the service's settings only when its own options are asked for."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from service.settings import options

        flags = [
            click.Option([o.flag, o.name], help=o.help, metavar=o.type_name) for o in options()
        ]
        return [*flags, *super().get_params(ctx)]


@main.command(cls=Serve)
def serve(**flags: str | None) -> None:
    """Serve the bundle that a channel of a store points at, and follow the channel.

    Every option is also an environment variable: --watch-seconds is TANDEM_WATCH_SECONDS.
    """
    from service.server import run

    run({name: value for name, value in flags.items() if value is not None})


@main.command()
@JOURNAL
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory to write.")
@click.option(
    "--data",
    "base",
    type=click.Path(path_type=Path),
    help="Tables to merge with: those that were trained on, or the last export.",
)
def export(journal: str, out: Path, base: Path | None) -> None:
    """Write what came in online as tables to train on.

    Events become interactions, with their kind; items come with their features, whether they are
    available and whether they were deleted. With --data, all of it is merged with the tables there:
    a posted item replaces its row. A bundle that is trained on an export says so, and the service
    drops from its overlay what the bundle holds.

    
      tandem export --journal state/journal.db --data data/monday --out data/tuesday
      tandem train recipes/mine.toml --data data/tuesday --out runs/tuesday
    """
    from contract.journal import opened_journal
    from offline.data.online import export as export_tables

    with opened_journal(journal) as opened:
        changes = export_tables(opened, out, base)
    click.echo(
        f"{out}: {len(changes.events):,} events, {len(changes.items):,} items posted, "
        f"{len(changes.deleted):,} deleted; includes the journal up to seq {changes.seq}"
    )


@main.command()
@STORE
@JOURNAL
@CHANNEL
@click.option(
    "--keep",
    default=86_400.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long an entry stays in the journal at least.",
)
@click.option(
    "--least",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Do nothing while fewer entries wait.",
)
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Go on, with so many seconds between two rounds, until SIGTERM.",
)
@JSON
def compact(
    store: str,
    journal: str,
    channel: str,
    keep: float,
    least: int,
    every: float | None,
    as_json: bool,
) -> None:
    """Make a new bundle out of a channel's bundle and the journal, without training.

    Items that were posted are embedded by the bundle's own tower and indexed, histories are
    extended, deleted items are out. The bundle goes through the gate, the channel points at it, and
    running services follow: their overlay is empty again, and they answer as before. Then the
    journal is trimmed of what the bundle of every channel holds and no one may need: keep entries
    for longer than a training takes from its export to its publish, and a rollback reaches back.

    
      tandem compact --store store --journal state/journal.db
      tandem compact --store store --journal state/journal.db --every 600 --least 10000
    """
    from contract.journal import opened_journal
    from contract.store import open_store
    from offline.compact import compact as compact_once
    from offline.rounds import rounds

    opened_store = open_store(store)

    def one() -> None:
        with opened_journal(journal) as opened:
            _show_compacted(compact_once(opened_store, opened, channel, least, keep), as_json)

    rounds(one, every)


def _show_compacted(done: "Compacted | None", as_json: bool) -> None:
    if as_json:
        _print_json(asdict(done) if done else None)
    elif done is None:
        click.echo("nothing to compact")
    else:
        click.echo(
            f"bundle {done.version} includes the journal up to seq {done.seq}: "
            f"{done.items:,} items posted, {done.refused:,} posts refused by the schema, "
            f"{done.deleted:,} deleted, {done.events:,} events; {done.trimmed:,} entries trimmed"
        )


@main.command()
@click.option("--data", "name", default="synthetic", show_default=True, help="synthetic or ml-1m.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Directory of the data.")
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Leave the service up and print its URLs.")
def demo(name: str, source: Path | None, out: Path, keep: bool) -> None:
    """The whole story: train, publish, serve, recommend, append, swap, measure."""
    from offline.demo import tell

    tell(name, source, out, keep)


@main.command()
@click.option("--store", help="Examine this store too, and the journal of its service: a path.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="The state directory of the service. [default: TANDEM_STATE, or 'state' beside the store]",
)
@click.option("--repair", is_flag=True, help="Do what without it is only said.")
@click.option(
    "--collect",
    type=click.IntRange(1),
    metavar="N",
    help="Old bundles too: those that no channel names nor had among the last N before.",
)
@JSON
def doctor(
    store: str | None, state: Path | None, repair: bool, collect: int | None, as_json: bool
) -> None:
    """What is installed, and what this machine will do; what is wrong with a store.

    With --store it looks at every bundle as the service does, at the channels, at what processes
    that died have left, and at the journal, and says what --repair would do. Nothing is done
    without --repair, and then what is damaged is set aside, not removed. Exit code 1: something is
    wrong still. The service may run, but for the repair of its journal.

    \b
      tandem doctor --store store
      tandem doctor --store store --repair
      tandem doctor --store store --collect 3 --repair
    """
    from service.doctor import machine

    if store is None:
        if state or repair or collect:
            raise click.UsageError("--state, --repair and --collect need --store")
        _show_findings(machine.examine(), as_json)
        return
    findings = _examined(store, state, collect)
    _show_findings(findings, as_json)
    if repair:
        _cure(findings)
    left = [f for f in findings if f.trouble and not (repair and f.cure)]
    if left:
        curable = sum(f.cure is not None for f in left)
        more = f"; --repair does what is said of {curable} of them" if curable else ""
        raise click.ClickException(f"{len(left)} troubles{more}")


def _examined(store: str, state: Path | None, collect: int | None) -> "list[Finding]":
    from contract.store import open_store
    from service.doctor import journal
    from service.doctor import store as stores
    from service.settings import read_settings

    given = {"store": store} | ({"state": str(state)} if state else {})
    settings = read_settings().model_copy(update=given)
    opened = open_store(store)
    return [
        *stores.examine(opened, collect),
        *journal.examine(settings.journal_uri(), opened),
    ]


def _show_findings(findings: "Sequence[Finding]", as_json: bool) -> None:
    if as_json:
        columns = ("what", "found", "advice", "trouble")
        _print_json([{name: getattr(f, name) for name in columns} for f in findings])
    else:
        _table(("what", "found", "advice"), [(f.what, f.found, f.advice) for f in findings])


def _cure(findings: "Sequence[Finding]") -> None:
    for finding in findings:
        if finding.cure:
            click.echo(f"{finding.what}: {finding.cure()}", err=True)


@main.group(cls=Verbs)
def bench() -> None:
    """Measure this machine: a table of what, measured, bar."""
    # Read when numpy is first imported: it multiplies on one thread, as in a worker of the service.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


ITEMS = click.option("--items", default=10_000, show_default=True, help="Size of the catalogue.")
PAIRS = click.option("--pairs", default=10_000, show_default=True, help="Writes, each read.")
PICTURE = click.option(
    "--picture", type=click.Path(path_type=Path), help="Draw it here, SVG or PNG."
)
RECIPE = click.option(
    "--recipe", default="demo", show_default=True, help="Name of one of Tandem's recipes."
)
TABLES = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="The directory of the recipe's tables.",
)


def measured(measure: "Callable[..., list[Row]]") -> "Callable[..., None]":
    """The rows that a verb of `bench` gives, shown and held to their bars."""

    @click.option("--check", is_flag=True, help="Exit with 1 where a bar is missed.")
    @click.option(
        "--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here."
    )
    @wraps(measure)
    def show(check: bool, json_file: Path | None, **given: Any) -> None:
        rows = measure(**given)
        cells = [
            (r.what, f"{r.measured:,.4g} {r.unit}", r.bar, "" if r.holds else "MISSED")
            for r in rows
        ]
        _table(("what", "measured", "bar", ""), cells)
        if json_file:
            from benchmarks.table import report

            _write_json(json_file, report(rows))
        missed = sum(not row.holds for row in rows)
        if check and missed:
            raise click.ClickException(f"{missed} of {len(rows)} rows miss their bar")

    return show


@bench.command("serve")
@ITEMS
@click.option("--run", type=click.Path(path_type=Path), help="A trained run, measured too.")
@PICTURE
@click.option("--against", metavar="URL", help="A service that runs elsewhere, asked for --users.")
@click.option(
    "--users", type=click.Path(path_type=Path), help="--against: whom to ask for, an id a line."
)
@click.option(
    "--read-key",
    envvar="TANDEM_READ_KEY",
    default="",
    help="--against: of the service; or in TANDEM_READ_KEY.",
)
@click.option(
    "--seconds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="--against: of each of five turns and five loads.",
)
@measured
def bench_serve(
    items: int,
    run: Path | None,
    picture: Path | None,
    against: str | None,
    users: Path | None,
    read_key: str,
    seconds: int,
) -> "list[Row]":
    """The whole recall beside an empty web handler and a naive service.

    Or, with --against, a service that runs elsewhere, alone. Needs wrk.
    """
    if against is None:
        from benchmarks import serve

        return serve.measure(items, run, picture)
    if users is None:
        raise click.UsageError("--against needs --users: a file of their ids")
    # Of its own: it needs nothing of the offline side.
    from benchmarks import against as elsewhere

    return elsewhere.measure(against, users, read_key, seconds, picture)


@bench.command("growth")
@ITEMS
@measured
def bench_growth(items: int) -> "list[Row]":
    """A recall against histories, interests, posted items, k and filters.

    Needs wrk.
    """
    from benchmarks import growth

    return growth.measure(items)


@bench.command("stages")
@ITEMS
@click.option("--picture", type=click.Path(path_type=Path), help="Draw it here, SVG.")
@measured
def bench_stages(items: int, picture: Path | None) -> "list[Row]":
    """Where the time of a recall goes, for catalogues up to --items.

    Needs wrk and py-spy.
    """
    from benchmarks import stages

    return stages.measure(items, picture)


@bench.command("swaps")
@ITEMS
@measured
def bench_swaps(items: int) -> "list[Row]":
    """20 swaps under load."""
    from benchmarks import swaps

    return swaps.measure(items)


@bench.command("search")
@ITEMS
@PICTURE
@measured
def bench_search(items: int, picture: Path | None) -> "list[Row]":
    """Every index backend: recall, latency, build time, bytes, memory."""
    from benchmarks import search

    return search.measure(items, picture)


@bench.command("filters")
@ITEMS
@measured
def bench_filters(items: int) -> "list[Row]":
    """Recalls through filters: recall, k of k, latency beside none."""
    from benchmarks import filters

    return filters.measure(items)


@bench.command("seam")
@ITEMS
@measured
def bench_seam(items: int) -> "list[Row]":
    """Every index backend beside the bare library: what it costs more."""
    from benchmarks import seam

    return seam.measure(items)


@bench.command("train")
@click.option(
    "--peer",
    type=click.Path(exists=True, path_type=Path),
    help="The Python of an environment with torch-rechub, to run beside.",
)
@measured
def bench_train(peer: Path | None) -> "list[Row]":
    """Preparation and training speed, torch-rechub beside it with --peer."""
    from benchmarks import train

    return train.measure(peer)


@bench.command("scale")
@ITEMS
@measured
def bench_scale(items: int) -> "list[Row]":
    """Preparation and an epoch, 20 interactions an item, and their memory."""
    from benchmarks import scale

    return scale.measure(items)


@bench.command("build")
@ITEMS
@measured
def bench_build(items: int) -> "list[Row]":
    """Publishing and loading a bundle, and what workers share of it."""
    from benchmarks import build

    return build.measure(items)


@bench.command("overlay")
@ITEMS
@measured
def bench_overlay(items: int) -> "list[Row]":
    """A recall with up to 200,000 posted items, and durable appends."""
    from benchmarks import overlay

    return overlay.measure(items)


@bench.command("visible")
@ITEMS
@PAIRS
@measured
def bench_visible(items: int, pairs: int) -> "list[Row]":
    """What one worker acknowledged, read on another."""
    from benchmarks import visible

    return visible.measure(items, pairs)


@bench.command("quality")
@RECIPE
@TABLES
@measured
def bench_quality(recipe: str, data: Path) -> "list[Row]":
    """A recipe on its data set, against the figures that it promises."""
    from benchmarks import quality

    return quality.measure(recipe, data)


@bench.command("cold")
@RECIPE
@TABLES
@measured
def bench_cold(recipe: str, data: Path) -> "list[Row]":
    """A recipe on items that training never saw, beside simple methods."""
    from benchmarks import cold

    return cold.measure(recipe, data)


@bench.command("blend")
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    required=True,
    help="A directory that 'tandem train' wrote.",
)
@measured
def bench_blend(run: Path) -> "list[Row]":
    """What diversity and explore do to the lists of a run, and cost."""
    from benchmarks import blend

    return blend.measure(run)


@bench.command("all")
@ITEMS
@PAIRS
@measured
def bench_all(items: int, pairs: int) -> "list[Row]":
    """All of these but stages, quality, cold and blend."""
    from benchmarks import (
        build,
        filters,
        growth,
        overlay,
        scale,
        seam,
        search,
        serve,
        swaps,
        train,
        visible,
    )

    return [
        *train.measure(None),
        *scale.measure(items),
        *search.measure(items),
        *seam.measure(items),
        *filters.measure(items),
        *build.measure(items),
        *serve.measure(items),
        *growth.measure(items),
        *swaps.measure(items),
        *overlay.measure(items),
        *visible.measure(items, pairs),
    ]


def _depths(text: str) -> list[int]:
    try:
        depths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise click.BadParameter(
            f"'{text}': expected numbers, as in 10,50", param_hint="--k"
        ) from None
    if depths[0] < 1:
        raise click.BadParameter("depths start at 1", param_hint="--k")
    return depths


def _show_gate(checks: "Sequence[Check]") -> None:
    rows = [(c.check, c.wanted, c.found, "yes" if c.passed else "NO") for c in checks]
    _table(("check", "wanted", "found", "passed"), rows)


def _show_metrics(metrics: "Metrics", target: str) -> None:
    """One row for each metric, one column for each k."""
    depths = sorted({int(name.partition("@")[2]) for name in metrics})
    names = list(dict.fromkeys(name.partition("@")[0] for name in metrics))
    rows = [(n, *(f"{metrics[f'{n}@{k}']:.4f}" for k in depths)) for n in names]
    _table((f"{target}, exact", *(f"@{k}" for k in depths)), rows)


def _show_report(report: "Report") -> None:
    _show_metrics(report.exact, report.target)
    hits = [f"HR@{k}" for k in report.ks]
    rows = [
        (name, f"{b.items:,}", f"{b.targets:,}", *(f"{b.metrics[hit]:.4f}" for hit in hits))
        for name, b in report.buckets.items()
        if b.targets
    ]
    _table(("target is", "items", "targets", *hits), rows)
    losses = {k: report.exact[k] - value for k, value in report.through.items()}
    name, worst = max(losses.items(), key=lambda loss: loss[1], default=("nothing", 0.0))
    click.echo(f"through the index {report.backend}: at most {max(worst, 0.0):.4f} lost, at {name}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width of its own: whole lines for the program that reads it.
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def _cell(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _print_json(value: object) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _write_json(path: Path, value: object) -> None:
    import orjson

    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    sys.exit(main())
