"""Pictures of what was measured, where looking is easier than reading."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from contract.manifest import Point

LEAST_RECALL = 0.8
"""Below it nobody serves."""


def draw_curves(curves: Mapping[str, Sequence[Point]], title: str, path: Path) -> None:
    """Recall against latency, a line for each backend: the best is at the top left."""
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot([p.p50_us for p in points], [p.recall for p in points], marker="o", label=name)
    axes.set_xscale("log")
    axes.set_ylim(LEAST_RECALL, 1.005)
    axes.set_xlabel("microseconds a query, p50, one thread")
    axes.set_ylabel("recall")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def draw_load(latencies: Mapping[float, Mapping[str, float]], title: str, path: Path) -> None:
    """Milliseconds by quantile over the share of the capacity, a line for each quantile."""
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    loads = list(latencies)
    for name in latencies[loads[0]]:
        axes.plot(loads, [latencies[load][name] for load in loads], marker="o", label=name)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the rate at saturation")
    axes.set_ylabel("milliseconds from when a request was due")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
