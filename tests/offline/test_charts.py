from xml.etree import ElementTree

import numpy as np
import pytest

from offline.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    Counts,
    Depths,
    Linear,
    Names,
    Plot,
    around,
    cloud,
    text,
)


def labels(axis: Axis) -> list[str]:
    return [label for _, label in axis.ticks()]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Linear("", 0, 1), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Linear("", 0.5, 3.5), ["1", "2", "3"]),
        (around("", [7.853, 8.69]), ["7.8", "8.0", "8.2", "8.4", "8.6", "8.8"]),
        (around("", [4.585, 5.58]), ["4.0", "4.5", "5.0", "5.5", "6.0"]),
        (around("", [-0.031, 0.04]), ["-0.04", "-0.02", "0.00", "0.02", "0.04"]),
        (around("", [0, 12_300]), ["0", "5,000", "10,000", "15,000"]),
        (around("", [0, 0]), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Counts("", 2500), ["0", "1", "10", "100", "1,000"]),
        (Counts("", 0), ["0", "1"]),
        (Depths("", 3416), ["1", "10", "100", "1,000"]),
        (Names("", ["head", "tail"]), ["head", "tail"]),
    ],
)
def test_ticks_are_round_numbers(axis: Axis, expected: list[str]) -> None:
    assert labels(axis) == expected


@pytest.mark.parametrize("values", [[3.1, 9.7], [-2, -2], [0.001, 0.0011], [5]])
def test_an_axis_around_values_has_room_for_them(values: list[float]) -> None:
    axis = around("", values)

    assert axis.low < axis.high
    assert ((axis.share(values) >= 0) & (axis.share(values) <= 1)).all()
    ends = [axis.ticks()[n][0] for n in (0, -1)]
    assert ends == pytest.approx([axis.low, axis.high])


def test_shares_run_from_one_end_to_the_other() -> None:
    assert Linear("", 2, 6).share([2, 3, 6]).tolist() == [0, 0.25, 1]
    assert Counts("", 99).share([0, 9, 99]) == pytest.approx([0, 0.5, 1])
    assert Depths("", 100).share([1, 10, 100]) == pytest.approx([0, 0.5, 1])
    assert Names("", ["a", "b"]).share([0, 1]).tolist() == [0.25, 0.75]


def test_marks_are_where_their_values_are() -> None:
    plot = Plot(Linear("x", 0, 10), Linear("y", 0, 1))

    drawn = ElementTree.fromstring(
        plot.svg(
            "all marks",
            plot.line([0, 10], [0, 1], "c0"),
            plot.area([0, 10], [1, 1], "c1"),
            plot.dots([5], [0.5], ["in the middle"], ["c2"]),
        )
    )

    paths = {path.get("class"): path.get("d") for path in drawn.iter("path")}
    assert paths["line c0"] == f"M{LEFT}.0 {BOTTOM}.0L{RIGHT}.0 {TOP}.0"
    assert paths["area c1"] == (
        f"M{LEFT}.0 {BOTTOM}L{LEFT}.0 {TOP}.0L{RIGHT}.0 {TOP}.0L{RIGHT}.0 {BOTTOM}Z"
    )
    (dot,) = drawn.iter("circle")
    assert (dot.get("cx"), dot.get("cy")) == (f"{(LEFT + RIGHT) / 2}", f"{(TOP + BOTTOM) / 2}")
    assert dot.findtext("title") == "in the middle"


def test_bars_are_as_high_as_their_values() -> None:
    plot = Plot(Names("", ["a", "b"]), Linear("y", 0, 4))

    drawn = ElementTree.fromstring(plot.svg("bars", plot.bars([1, 4], ["1", "4"], ["c0", "c1"])))

    heights = [float(bar.get("height", 0)) for bar in drawn.iter("rect")]
    assert heights == [(BOTTOM - TOP) / 4, BOTTOM - TOP]


def test_a_cloud_keeps_shape_and_stays_inside() -> None:
    points = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0]])

    drawn = ElementTree.fromstring(cloud("map", points, ["a", "b", "c"], ["c0"] * 3))

    xs, ys = (np.array([float(c.get(k, "")) for c in drawn.iter("circle")]) for k in ("cx", "cy"))
    _, _, width, height = map(float, drawn.get("viewBox", "").split())
    assert xs[1] - xs[0] == pytest.approx(4 * (ys[0] - ys[2]), abs=0.5)
    assert 0 < xs.min() < xs.max() < width
    assert 0 < ys.min() < ys.max() < height


def test_points_that_are_all_one_are_in_the_middle() -> None:
    drawn = ElementTree.fromstring(cloud("map", np.zeros((2, 2)), ["a", "b"], ["c0", "c0"]))

    assert {(c.get("cx"), c.get("cy")) for c in drawn.iter("circle")} == {("320.0", "280.0")}


def test_words_of_others_cannot_break_the_drawing() -> None:
    hostile = "</title><script>alert(1)</script>\x00\x1b \ud800 \"quoted\" 'too' & more"

    drawn = ElementTree.fromstring(cloud(hostile, np.zeros((1, 2)), [hostile], ["c0"]))

    assert text("a\x07b") == "a b"
    assert drawn.get("aria-label", "").endswith("\"quoted\" 'too' & more")
    assert [child.tag for child in drawn.iter()] == ["svg", "circle", "title"]
