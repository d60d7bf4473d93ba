"""Stacked bars, as an SVG that follows the light or dark theme of the page it stands on."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

COLOURS = (
    "#7aa6d8",
    "#72b7b2",
    "#f2cf5b",
    "#f59b42",
    "#ec7a78",
    "#c193b8",
    "#7fbf6f",
    "#b8957f",
)
WIDTH, LEFT, RIGHT, TOP = 960, 150, 70, 112
BAR, GAP = 46, 26
LEAST = 20
"""Pixels of a part that has room for its figure."""
STYLE = """
    :root { color-scheme: light dark; }
    text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
    .head { font-weight: 600; font-size: 17px; }
    .small { fill: #57606a; }
    .label, .total { font-weight: 600; font-size: 14px; }
    .label { text-anchor: end; }
    .in { text-anchor: middle; fill: #10151c; font-size: 12.5px; font-weight: 600; }
    .part { stroke: #ffffff; stroke-width: 1; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .small { fill: #9198a1; }
      .in { fill: #10151c; }
      .part { stroke: #0d1117; }
    }
"""


def draw_bars(bars: Mapping[str, Mapping[str, float]], title: str, what: str, path: Path) -> None:
    """A bar for each, of its parts; all have the same parts in the same order. `what` says what the
    figures are."""
    height = TOP + len(bars) * (BAR + GAP)
    most = max(sum(parts.values()) for parts in bars.values())
    scale = (WIDTH - LEFT - RIGHT) / most
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="head" x="20" y="30">{escape(title)}</text>',
        f'<text class="small" x="20" y="52">{escape(what)}</text>',
        *_legend(list(next(iter(bars.values())))),
    ]
    for row, (label, parts) in enumerate(bars.items()):
        drawn += _bar(label, parts, TOP + row * (BAR + GAP), scale)
    path.write_text("\n".join([*drawn, "</svg>\n"]))


def _legend(names: list[str]) -> Iterator[str]:
    x = 20.0
    for name, colour in zip(names, COLOURS, strict=False):
        yield f'<rect x="{x:g}" y="72" width="13" height="13" rx="3" fill="{colour}"/>'
        yield f'<text x="{x + 19:g}" y="83">{escape(name)}</text>'
        x += 19 + 7.2 * len(name) + 20


def _bar(label: str, parts: Mapping[str, float], y: int, scale: float) -> Iterator[str]:
    yield f'<text class="label" x="{LEFT - 12}" y="{y + BAR / 2 + 5:g}">{escape(label)}</text>'
    x = float(LEFT)
    for (name, value), colour in zip(parts.items(), COLOURS, strict=False):
        width = value * scale
        area = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}"'
        yield f'<rect class="part" {area} fill="{colour}"><title>{escape(name)}</title></rect>'
        if width >= LEAST:
            middle = f'x="{x + width / 2:.1f}" y="{y + BAR / 2 + 5:g}"'
            yield f'<text class="in" {middle}>{value:.0f}</text>'
        x += width
    total = sum(parts.values())
    yield f'<text class="total" x="{x + 8:.1f}" y="{y + BAR / 2 + 5:g}">{total:.0f}</text>'
