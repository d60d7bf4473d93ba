"""The sections of the page about a run: each a piece of HTML out of one view of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from contract.arrays import F32, F64, I64
from offline.charts import Counts, Depths, Linear, Names, Plot, around, cloud, text
from offline.labels import Labels, label
from offline.metrics import BUCKETS, directions, popularity_buckets, times_shown
from offline.projection import Projection
from offline.report import QUANTILES, Report
from offline.run import Run

COLOURS = ("c0", "c1", "c2", "c3", "c4", "c5", "c6", "rest")
BUCKET_COLOURS = ("c0", "c2", "c1", "c3")
MOST_POINTS = 4000
"""A browser draws so many with ease."""
BINS = 50
PAIRS, PAIR_COLOURS = ("random pair", "item and its nearest"), ("rest", "c0")
USERS, LISTED = 6, 10


@dataclass(frozen=True)
class View:
    """A run, its report, and what several sections need of them."""

    run: Run
    report: Report
    project: Projection
    labels: Labels
    k: int
    """The depth of what is drawn at one depth."""
    candidates: I64
    """Item rows (C,), the most popular in training first."""
    trained: I64
    """Training interactions of each item (N,)."""
    shown: I64
    """In how many of the first k each item stands (N,)."""

    @property
    def drawn(self) -> I64:
        """The candidates, or where they are too many to draw an even sample over popularity."""
        return self.candidates[:: -(-len(self.candidates) // MOST_POINTS)]

    def title(self, row: int) -> str:
        return self.labels.titles[row]

    def colour(self, row: int) -> str:
        """Of the item's category: the largest have a colour each, the rest one in common."""
        group = self.labels.group[row]
        return COLOURS[group] if group + 1 < len(self.labels.groups) else COLOURS[-1]

    def key(self) -> str:
        """The legend of the categories, if there are any."""
        groups = self.labels.groups
        colours = [*COLOURS[: len(groups) - 1], COLOURS[-1]]
        return legend(groups, colours) if self.labels.column else ""


def view(run: Run, report: Report, project: Projection) -> View:
    dataset, k = run.dataset, min(report.ks)
    trained = dataset.counts(dataset.split().train_end)
    rated = np.flatnonzero(dataset.counts() > 0)
    candidates = rated[np.argsort(-trained[rated], kind="stable")]
    return View(
        run=run,
        report=report,
        project=project,
        labels=label(dataset, candidates),
        k=k,
        candidates=candidates,
        trained=trained,
        shown=times_shown(report.ranking.lists[:, :k], len(trained)),
    )


def training(view: View) -> str:
    epochs = view.run.description.epochs
    watch = view.run.description.recipe.training.watch
    best = max(epochs, key=lambda epoch: epoch.score)
    numbers = [epoch.epoch for epoch in epochs]
    axis = Linear("epoch", min(numbers) - 0.5, max(numbers) + 0.5)
    curves = (
        ("Training loss", "loss", "c1", [epoch.loss for epoch in epochs]),
        (f"Validation {watch}", watch, "c0", [epoch.score for epoch in epochs]),
    )
    charts = [
        figure(name, curve(axis, axis_name, numbers, values, colour))
        for name, axis_name, colour, values in curves
    ]
    words = (
        f"Epoch {best.epoch} of {len(epochs)} had the best validation {watch}, {best.score:.4f}: "
        "its weights were kept."
    )
    return section("Training", words, columns(charts))


def curve(x: Linear, name: str, numbers: Sequence[int], values: Sequence[float], own: str) -> str:
    plot = Plot(x, around(name, values))
    titles = [f"epoch {n}\n{name} {value:.4f}" for n, value in zip(numbers, values, strict=True)]
    dots = plot.dots(numbers, values, titles, [f"solid {own}"] * len(values))
    return plot.svg(f"{name} by epoch", plot.line(numbers, values, own), dots)


def ranking(view: View) -> str:
    exact, through, ks = view.report.exact, view.report.through, view.report.ks
    names = list(dict.fromkeys(name.partition("@")[0] for name in exact))
    rows = [[name, *(f"{exact[f'{name}@{k}']:.4f}" for k in ks)] for name in names]
    lost = f"{max(0.0, *(exact[name] - value for name, value in through.items())):.4f}"
    note = f"Through the index {view.report.backend} a metric loses at most {lost}."
    words = (
        f"The whole catalogue, {len(view.candidates):,} items, is ranked for each of "
        f"{len(view.report.ranking.users):,} users; the target is the one that the user took next."
    )
    cards = [
        figure("Metrics", table(["", *(f"@{k}" for k in ks)], rows), note),
        figure(
            "Share of targets among the first k",
            hit_curves(view),
            legend=legend(*_buckets_with_targets(view)),
        ),
    ]
    return section("Ranking", words, columns(cards))


def hit_curves(view: View) -> str:
    depths = np.unique(np.geomspace(1, len(view.candidates), 80).astype(np.int64))
    plot = Plot(Depths("k", len(view.candidates)), Linear("HR@k", 0, 1))
    ranks, own = view.report.ranking.ranks, _target_buckets(view)
    lines = [
        plot.line(depths, _share_within(ranks[own == BUCKETS.index(name)], depths), colour, name)
        for name, colour in zip(*_buckets_with_targets(view), strict=True)
    ]
    return plot.svg("hit rate by depth", *lines)


def _share_within(ranks: I64, depths: I64) -> F64:
    return np.searchsorted(np.sort(ranks), depths, side="left") / len(ranks)


def _target_buckets(view: View) -> I64:
    wanted = view.run.dataset.sequences.items[view.report.ranking.positions]
    buckets: I64 = popularity_buckets(view.trained)[wanted]
    return buckets


def _buckets_with_targets(view: View) -> tuple[list[str], list[str]]:
    """Their names and colours."""
    pairs = zip(view.report.buckets.items(), BUCKET_COLOURS, strict=True)
    there = [(name, colour) for (name, bucket), colour in pairs if bucket.targets]
    return [name for name, _ in there], [colour for _, colour in there]


def popularity(view: View) -> str:
    hit = f"HR@{view.k}"
    names, colours = _buckets_with_targets(view)
    heights = [view.report.buckets[name].metrics[hit] for name in names]
    plot = Plot(Names("", names), around(hit, [0.0, *heights]))
    bars = plot.bars(heights, [f"{height:.3f}" for height in heights], colours)
    words = (
        "Head, torso and tail hold a third of the training interactions each, from the most "
        "popular item on; a cold item has none."
    )
    cards = [
        figure(f"{hit} by popularity of the target", plot.svg(f"{hit} by bucket", bars)),
        figure("Buckets", bucket_table(view)),
    ]
    return section("Popularity", words, columns(cards))


def bucket_table(view: View) -> str:
    buckets = view.report.buckets.values()
    sizes = [
        ["items", *(f"{bucket.items:,}" for bucket in buckets)],
        ["targets", *(f"{bucket.targets:,}" for bucket in buckets)],
    ]
    names = [f"{name}@{k}" for name in ("HR", "NDCG") for k in view.report.ks]
    metrics = [
        [name, *(f"{b.metrics[name]:.4f}" if b.targets else "" for b in buckets)] for name in names
    ]
    return table(["", *view.report.buckets], sizes + metrics)


def concentration(view: View) -> str:
    shown, trained = view.shown[view.candidates], view.trained[view.candidates]
    tenth = max(len(shown) // 10, 1)
    top = np.sort(shown)[::-1][:tenth].sum() / shown.sum()
    exact, k = view.report.exact, view.k
    words = (
        f"{exact[f'Coverage@{k}']:.1%} of the items stand in someone's first {k}; the tenth that "
        f"is shown most fills {top:.1%} of the places (Gini {exact[f'Gini@{k}']:.3f})."
    )
    share = Plot(
        Linear("share of items, most frequent first", 0, 1), Linear("share of the whole", 0, 1)
    )
    curves = (
        share.line([0, 1], [0, 1], "even"),
        share.line(*_lorenz(trained), "c1", "interactions in training"),
        share.line(*_lorenz(shown), "c0", "recommended"),
    )
    cards = [
        figure(
            "Concentration",
            share.svg("concentration of recommendations", *curves),
            "Dashed: every item as often as every other.",
            legend(["recommended", "interactions in training"], ["c0", "c1"]),
        ),
        figure(
            "Popular, and recommended",
            frequency(view),
            "A point is an item; those on the ground are never shown.",
            legend(BUCKETS, BUCKET_COLOURS),
        ),
    ]
    return section("Catalogue", words, columns(cards))


def frequency(view: View) -> str:
    rows = view.drawn
    trained, shown = view.trained[rows], view.shown[rows]
    colours = np.array(BUCKET_COLOURS)[popularity_buckets(view.trained)[rows]]
    titles = [
        f"{view.title(row)}\n{n:,} interactions, {m:,} times in the first {view.k}"
        for row, n, m in zip(rows, trained, shown, strict=True)
    ]
    plot = Plot(
        Counts("interactions in training", int(trained.max())),
        Counts(f"times in the first {view.k}", int(shown.max())),
    )
    return plot.svg(
        "recommendations by popularity", plot.dots(trained, shown, titles, colours.tolist())
    )


def _lorenz(counts: I64) -> tuple[F64, F64]:
    """Share of the items, largest count first, and the share of all counts that they have."""
    falling = np.cumsum(np.sort(counts)[::-1]) / max(int(counts.sum()), 1)
    at = np.unique(np.linspace(0, len(counts), 201).astype(np.int64))
    return at / len(counts), np.concatenate([[0.0], falling])[at]


def embeddings(view: View) -> str:
    rows, column = view.drawn, view.labels.column
    drawn = view.project(directions(view.report.vectors[rows]))
    titles = [_item_tip(view, row) for row in rows]
    image = cloud("map of the item vectors", drawn.points, titles, [view.colour(r) for r in rows])
    words = f"{len(rows):,} of {len(view.candidates):,} item vectors, at length 1. {drawn.note}"
    caption = f"By {column}; point at a name to see it alone." if column else ""
    cards = [
        figure("Map of the items", image, caption, view.key()),
        figure(
            "Cosine of two items",
            histograms(view) + legend(PAIRS, PAIR_COLOURS) + quantiles(view),
            "The further apart, the better neighbours are told from strangers; where random pairs "
            "are near 1, the space has collapsed.",
        ),
    ]
    return section("Embeddings", words, columns(cards, "uneven"))


def quantiles(view: View) -> str:
    rows = [
        [name, *(f"{np.quantile(cosines, q):.3f}" for q in QUANTILES)]
        for name, cosines in zip(PAIRS, view.report.similarities, strict=True)
    ]
    return table(["quantile", *(f"{q:.0%}" for q in QUANTILES)], rows)


def histograms(view: View) -> str:
    cosine = around("cosine", np.concatenate([*view.report.similarities, [1.0]]))
    edges = np.linspace(cosine.low, cosine.high, BINS + 1)
    shares = [_binned(cosines, edges) for cosines in view.report.similarities]
    plot = Plot(cosine, around("share of the pairs", [0.0, max(map(max, shares))]))
    areas = [
        plot.area(np.repeat(edges, 2)[1:-1], np.repeat(share, 2), colour)
        for share, colour in zip(shares, PAIR_COLOURS, strict=True)
    ]
    return plot.svg("similarities of item vectors", *areas)


def _binned(cosines: F32, edges: F64) -> F64:
    counts, _ = np.histogram(np.clip(cosines, edges[0], edges[-1]), edges)
    return counts / max(len(cosines), 1)


def examples(view: View) -> str:
    ranks = view.report.ranking.ranks
    # From a target that is found at once to one that is far down: no picked cherries.
    order = np.argsort(ranks, kind="stable")
    picked = order[np.linspace(0, 0.9 * (len(order) - 1), min(USERS, len(order))).astype(np.int64)]
    words = (
        "Users at even steps from the best served towards the worst: what they took last, what is "
        "recommended, and what they took next."
    )
    cards = columns(user_card(view, int(n)) for n in picked)
    return section("Examples", words, view.key() + cards)


def user_card(view: View, n: int) -> str:
    found, sequences = view.report.ranking, view.run.dataset.sequences
    user, position = int(found.users[n]), int(found.positions[n])
    begin = max(int(sequences.offsets[user]), position - LISTED)
    history = sequences.items[begin:position][::-1].tolist()
    best = [row for row in found.lists[n, :LISTED].tolist() if row >= 0]
    target = int(sequences.items[position])
    return (
        f'<article class="card user"><h3>User {text(view.run.dataset.user_ids[user])}</h3>'
        f'<div class="sides"><div><h4>history, latest first</h4>{_items(view, history, -1)}</div>'
        f"<div><h4>recommended</h4>{_items(view, best, target)}</div></div>"
        f'<p>Took next: <b class="dot {view.colour(target)}">{text(view.title(target))}</b>, '
        f"ranked {found.ranks[n] + 1:,}.</p></article>"
    )


def _items(view: View, rows: Iterable[int], hit: int) -> str:
    lines = "".join(
        f'<li class="{"hit" if row == hit else ""}"><span class="dot {view.colour(row)}">'
        f"{text(view.title(row))}</span></li>"
        for row in rows
    )
    return f"<ol>{lines}</ol>"


def _item_tip(view: View, row: int) -> str:
    group = view.labels.groups[view.labels.group[row]] if view.labels.column else ""
    return "\n".join(filter(None, (view.title(row), group, f"{view.trained[row]:,} interactions")))


def section(title: str, words: str, body: str) -> str:
    return f'<section id="{title.lower()}"><h2>{title}</h2><p>{text(words)}</p>{body}</section>'


def columns(cards: Iterable[str], kind: str = "") -> str:
    return f'<div class="columns {kind}">{"".join(cards)}</div>'


def figure(title: str, body: str, caption: str = "", legend: str = "") -> str:
    words = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure class="card"><h3>{text(title)}</h3>{body}{legend}{words}</figure>'


def legend(names: Sequence[str], colours: Sequence[str]) -> str:
    entries = (
        f'<li class="{colour}">{text(name)}</li>'
        for name, colour in zip(names, colours, strict=True)
        if name
    )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f"<th>{text(name)}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{heads}</tr>{lines}</table></div>'


SECTIONS = (training, ranking, popularity, concentration, embeddings, examples)
