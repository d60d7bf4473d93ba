"""One self-contained HTML page about a run, for people: how it was trained, how well it ranks, whom
it serves, and what it would show. It asks for nothing outside itself."""

from datetime import UTC, datetime
from pathlib import Path
from string import Template

from contract.errors import DataError
from offline.charts import text
from offline.projection import Projection
from offline.report import Report
from offline.run import DESCRIPTION, Run
from offline.sections import COLOURS, SECTIONS, View, view

PAGE = Path(__file__).with_name("page.html")
# A legend's entry that is pointed at leaves only its own points bright.
FADING = "figure:has(li.{0}:hover) circle:not(.{0}) {{ opacity: .06; }}"


def write_page(run: Run, report: Report, path: Path, project: Projection) -> None:
    """Raises DataError where there is nothing to show."""
    shown = view(run, report, project)
    if not len(report.ranking.users) or len(shown.candidates) < 2:
        raise DataError(
            f"{run.path}: {len(report.ranking.users)} users with a {report.target} target and "
            f"{len(shown.candidates)} items; a report takes 1 user with 3 interactions and 2 items"
        )
    path.write_text(html(shown), encoding="utf-8")


def html(view: View) -> str:
    run = view.run
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=text(run.description.recipe.model),
        subtitle=text(_subtitle(view)),
        tiles="".join(_tile(value, name, kind) for value, name, kind in _tiles(view)),
        recipe=text(run.description.recipe.model_dump_json(indent=2, exclude_defaults=True)),
        fading=" ".join(FADING.format(colour) for colour in COLOURS),
        sections="\n".join(section(view) for section in SECTIONS),
    )


def _subtitle(view: View) -> str:
    written = datetime.fromtimestamp((view.run.path / DESCRIPTION).stat().st_mtime, UTC)
    return (
        f"Run {view.run.path.resolve().name}, written {written:%-d %B %Y, %H:%M} UTC, "
        f"evaluated on the {view.report.target} target."
    )


def _tiles(view: View) -> list[tuple[str, str, str]]:
    description, exact, k = view.run.description, view.report.exact, view.k
    seconds = sum(epoch.seconds for epoch in description.epochs)
    metrics = [
        (f"{exact[f'{name}@{k}']:.4f}", f"{name}@{k}") for name in ("HR", "NDCG", "Coverage")
    ]
    sizes = [
        (f"{len(view.run.dataset.sequences.items):,}", "interactions"),
        (f"{len(view.run.dataset.user_ids):,}", "users"),
        (f"{len(view.candidates):,}", "items"),
    ]
    speed = [
        (f"{description.samples_per_second:,.0f}", "samples/s"),
        (f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s", "training"),
    ]
    return [
        *((value, name, "main") for value, name in metrics),
        *((value, name, "") for value, name in sizes + speed),
    ]


def _tile(value: str, name: str, kind: str) -> str:
    return f'<div class="tile {kind}"><b>{text(value)}</b><span>{text(name)}</span></div>'
