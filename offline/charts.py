"""Charts as inline SVG: axes, marks, and a frame that joins them.

Colours and fonts are classes of the page's style sheet, so one drawing serves light and dark. A
mark's title is shown when it is pointed at.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contract.arrays import F64

Numbers = npt.ArrayLike
Tick = tuple[float, str]

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 388, 26, 222
UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def text(value: object) -> str:
    """As it may stand in HTML and in XML, in an attribute too."""
    return escape(UNPRINTABLE.sub(" ", str(value)))


class Axis(Protocol):
    @property
    def label(self) -> str: ...

    def share(self, values: Numbers) -> F64:
        """Where values lie between the ends: 0 at the low one, 1 at the high one."""
        ...

    def ticks(self) -> Sequence[Tick]: ...


@dataclass(frozen=True)
class Linear:
    label: str
    low: float
    high: float

    def share(self, values: Numbers) -> F64:
        return (np.asarray(values, np.float64) - self.low) / (self.high - self.low)

    def ticks(self) -> list[Tick]:
        step = _step(self.high - self.low)
        places = np.arange(np.ceil(self.low / step - 1e-9), np.floor(self.high / step + 1e-9) + 1)
        digits = max(0, -int(np.floor(np.log10(step) + 1e-9)))
        return [(float(p * step), f"{p * step + 0.0:,.{digits}f}") for p in places]


def around(label: str, values: Numbers) -> Linear:
    """A linear axis that begins and ends with a tick."""
    low, high = float(np.min(values)), float(np.max(values))
    if low == high:
        low, high = min(0.0, 2 * low), max(0.0, 2 * high) or 1.0
    step = _step(high - low)
    ends = float(np.floor(low / step) * step), float(np.ceil(high / step) * step)
    # The wider span may have other ticks, at which it then ends.
    return Linear(label, *ends) if _step(ends[1] - ends[0]) == step else around(label, ends)


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten: about four of them in the span."""
    power = 10.0 ** np.floor(np.log10(span / 4))
    return float(next(n * power for n in (1, 2, 5, 10) if span / (n * power) <= 5))


@dataclass(frozen=True)
class Counts:
    """Logarithmic, with room for zero: for counts from 0 to `high`."""

    label: str
    high: float

    def share(self, values: Numbers) -> F64:
        share: F64 = np.log1p(values) / np.log1p(max(self.high, 1.0))
        return share

    def ticks(self) -> list[Tick]:
        return [(0.0, "0"), *_powers(max(self.high, 1.0))]


@dataclass(frozen=True)
class Depths:
    """Logarithmic, from 1 to `high`."""

    label: str
    high: float

    def share(self, values: Numbers) -> F64:
        share: F64 = np.log(values) / np.log(max(self.high, 2.0))
        return share

    def ticks(self) -> list[Tick]:
        return _powers(max(self.high, 2.0))


def _powers(high: float) -> list[Tick]:
    return [(10.0**n, f"{10**n:,}") for n in range(int(np.log10(high) + 1e-9) + 1)]


@dataclass(frozen=True)
class Names:
    """One place for each name; values are positions 0, 1, .."""

    label: str
    names: Sequence[str]

    def share(self, values: Numbers) -> F64:
        return (np.asarray(values, np.float64) + 0.5) / len(self.names)

    def ticks(self) -> list[Tick]:
        return [(float(n), name) for n, name in enumerate(self.names)]


@dataclass(frozen=True)
class Plot:
    """Marks are pieces of SVG; `colour` is a class of the style sheet."""

    x: Axis
    y: Axis

    def line(self, xs: Numbers, ys: Numbers, colour: str, title: str = "") -> str:
        named = f"<title>{text(title)}</title>" if title else ""
        return f'<path class="line {colour}" d="M{self._path(xs, ys)}">{named}</path>'

    def area(self, xs: Numbers, ys: Numbers, colour: str) -> str:
        """A line, and what lies between it and the bottom."""
        low, high = self._x(np.asarray(xs)[[0, -1]])
        path = f"M{low:.1f} {BOTTOM}L{self._path(xs, ys)}L{high:.1f} {BOTTOM}Z"
        return f'<path class="area {colour}" d="{path}"/>{self.line(xs, ys, colour)}'

    def dots(self, xs: Numbers, ys: Numbers, titles: Sequence[str], colours: Sequence[str]) -> str:
        return _dots(self._x(xs), self._y(ys), titles, colours)

    def bars(self, heights: Sequence[float], titles: Sequence[str], colours: Sequence[str]) -> str:
        """One bar for each name of the x axis, with its title above it."""
        width = min(0.6 * (RIGHT - LEFT) / len(heights), 56)
        places = zip(self._x(np.arange(len(heights))), self._y(heights), strict=True)
        return "".join(
            f'<rect class="bar {colour}" x="{x - width / 2:.1f}" y="{y:.1f}" rx="3"'
            f' width="{width:.1f}" height="{BOTTOM - y:.1f}"/>'
            f'<text class="value" x="{x:.1f}" y="{y - 5:.1f}">{text(title)}</text>'
            for (x, y), title, colour in zip(places, titles, colours, strict=True)
        )

    def svg(self, name: str, *marks: str) -> str:
        """`name` is what a screen reader says."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(name)}">'
            f"{self._frame()}{''.join(marks)}</svg>"
        )

    def _frame(self) -> str:
        rows, columns = self.y.ticks(), self.x.ticks()
        grid = "".join(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
            f'<text class="tick y" x="{LEFT - 6}" y="{y + 4:.1f}">{text(name)}</text>'
            for (_, name), y in zip(rows, self._y([at for at, _ in rows]), strict=True)
        )
        below = "".join(
            f'<text class="tick x" x="{x:.1f}" y="{BOTTOM + 16}">{text(name)}</text>'
            for (_, name), x in zip(columns, self._x([at for at, _ in columns]), strict=True)
        )
        return (
            f'{grid}{below}<path class="base" d="M{LEFT} {BOTTOM}H{RIGHT}"/>'
            f'<text class="axis" x="0" y="12">{text(self.y.label)}</text>'
            f'<text class="axis end" x="{RIGHT}" y="{HEIGHT - 5}">{text(self.x.label)}</text>'
        )

    def _x(self, values: Numbers) -> F64:
        return LEFT + (RIGHT - LEFT) * self.x.share(values)

    def _y(self, values: Numbers) -> F64:
        return BOTTOM - (BOTTOM - TOP) * self.y.share(values)

    def _path(self, xs: Numbers, ys: Numbers) -> str:
        return "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(self._x(xs), self._y(ys), strict=True))


CLOUD_WIDTH, CLOUD_HEIGHT, MARGIN = 640, 560, 8


def cloud(name: str, points: F64, titles: Sequence[str], colours: Sequence[str]) -> str:
    """Points (N, 2) on a plane without axes, as large as it can be; the same scale both ways."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    room = np.array([CLOUD_WIDTH, CLOUD_HEIGHT]) - 2 * MARGIN
    scale = float((room / np.maximum(span, 1e-9)).min())
    xs, ys = (MARGIN + (room - scale * span) / 2 + scale * (points - low)).T
    marks = _dots(xs, CLOUD_HEIGHT - ys, titles, colours)
    box = f"0 0 {CLOUD_WIDTH} {CLOUD_HEIGHT}"
    return f'<svg class="cloud" viewBox="{box}" role="img" aria-label="{text(name)}">{marks}</svg>'


def _dots(xs: F64, ys: F64, titles: Sequence[str], colours: Sequence[str]) -> str:
    return "".join(
        f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.8"><title>{text(title)}</title>'
        "</circle>"
        for x, y, title, colour in zip(xs, ys, titles, colours, strict=True)
    )
