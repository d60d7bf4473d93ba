"""The page about a run: what is in it, and how a real browser shows it."""

import html
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from contract.errors import DataError
from offline.metrics import BUCKETS
from offline.page import write_page
from offline.projection import pca
from offline.report import Report, evaluate_run
from offline.run import Run
from tandem import main
from tests.places import program

SECTIONS = ["training", "ranking", "popularity", "catalogue", "embeddings", "examples"]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--virtual-time-budget=5000 --enable-logging=stderr --dump-dom"
)
# A frame of each width, and what each says about its own content.
FRAMES = """<!doctype html><body><script>
for (const frame of document.querySelectorAll("iframe")) frame.onload = () => {
  const inside = frame.contentDocument, page = inside.documentElement;
  const wide = [...inside.querySelectorAll("section *, header *")].filter(one =>
    !one.closest(".scroll, pre, svg") && one.scrollWidth > one.clientWidth + 1 && one.clientWidth);
  inside.querySelector("circle").dispatchEvent(
    new PointerEvent("pointerover", {bubbles: true, clientX: 5, clientY: 500}));
  frame.dataset.found = `${page.scrollWidth <= page.clientWidth} ${wide.length} `
    + inside.querySelector("#tip").textContent.split("\\n")[0];
};
</script></body>"""


@pytest.fixture(scope="module")
def report(run: Run) -> Report:
    return evaluate_run(run, "test", (10, 50), "exact")


@pytest.fixture(scope="module")
def page(run: Run, report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(run, report, path, pca)
    return path.read_text()


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)
    assert found, name
    return found[0]


def cells(fragment: str) -> list[list[str]]:
    """Rows of the tables in a piece of the page."""
    return [
        re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", fragment)
    ]


def test_every_section_is_there_in_order_and_is_well_formed(page: str) -> None:
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    for name in SECTIONS:
        ElementTree.fromstring(section(page, name))


def test_every_drawing_is_valid_and_inside_its_frame(page: str) -> None:
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]

    assert len(drawings) == 8
    for drawing in drawings:
        _, _, width, height = map(float, drawing.get("viewBox", "").split())
        for mark in drawing.iter():
            at = [mark.get(key) for key in ("x", "cx")], [mark.get(key) for key in ("y", "cy")]
            for places, end in zip(at, (width, height), strict=True):
                assert all(0 <= float(place) <= end for place in places if place)
        assert drawing.get("aria-label")


def test_the_page_asks_for_nothing_outside_itself(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//\w|url\(|@import|<link|\bsrc=|\bhref=", page)


def test_the_metrics_are_those_of_the_report(page: str, report: Report) -> None:
    head, *rows = cells(section(page, "ranking"))

    assert head == ["", "@10", "@50"]
    assert {f"{name}@{k}": v for name, *vs in rows for k, v in zip((10, 50), vs, strict=True)} == {
        name: f"{value:.4f}" for name, value in report.exact.items()
    }
    assert f"<b>{report.exact['HR@10']:.4f}</b><span>HR@10</span>" in page


def test_the_buckets_are_those_of_the_report(page: str, report: Report) -> None:
    head, *rows = cells(section(page, "popularity"))
    columns = dict(zip(head[1:], zip(*(row[1:] for row in rows), strict=True), strict=True))

    assert list(columns) == list(BUCKETS)
    for name, bucket in report.buckets.items():
        assert columns[name][:2] == (str(bucket.items), str(bucket.targets))
        assert columns[name][2] == (f"{bucket.metrics['HR@10']:.4f}" if bucket.targets else "")


def test_the_curves_have_a_point_for_every_epoch(page: str, run: Run) -> None:
    titles = re.findall(r"<title>epoch (\d)\n(\S+) (\S+)</title>", section(page, "training"))

    epochs = run.description.epochs
    assert titles == [
        *((str(e.epoch), "loss", f"{e.loss:.4f}") for e in epochs),
        *((str(e.epoch), "HR@10", f"{e.score:.4f}") for e in epochs),
    ]


def test_every_candidate_is_on_the_map_in_the_colour_of_its_category(page: str, run: Run) -> None:
    legend, *_ = re.findall(r'<ul class="legend">.*?</ul>', section(page, "embeddings"))
    colours = {name: own for own, name in re.findall(r'<li class="(\w+)">(.*?)</li>', legend)}
    cloud = ElementTree.fromstring(re.findall(r'<svg class="cloud".*?</svg>', page, re.S)[0])
    drawn = {
        tuple(dot.findtext("title", "").split("\n")[:2]): dot.get("class")
        for dot in cloud.iter("circle")
    }

    columns = ("title", "category")
    titles, categories = (run.dataset.attributes[column].to_list() for column in columns)
    rated = np.flatnonzero(run.dataset.counts() > 0)
    assert len(list(cloud.iter("circle"))) == len(rated)
    for row in rated:
        name = categories[row] if categories[row] in colours else "other"
        assert drawn[titles[row], name] == colours[name]


def test_the_concentration_is_counted_from_the_lists(page: str, report: Report) -> None:
    titles = re.findall(r"<title>[^<]*\n\d+ interactions, (\d+) times", section(page, "catalogue"))

    assert sum(map(int, titles)) == 10 * len(report.ranking.users)
    assert f"{report.exact['Coverage@10']:.1%} of the items" in page


def test_the_examples_are_the_users_own(page: str, run: Run, report: Report) -> None:
    names, found = run.dataset.attributes["title"].to_list(), report.ranking
    articles = ElementTree.fromstring(section(page, "examples")).findall(".//article")

    assert len(articles) == 6
    for article in articles:
        row = run.dataset.user_ids.index((article.findtext("h3") or "").removeprefix("User "))
        history, shown = (
            [one.findtext("span") for one in side.iter("li")] for side in article.iter("ol")
        )
        items, n = run.dataset.sequences.items, found.users.tolist().index(row)
        past = items[found.positions[n] - 10 : found.positions[n]]
        assert history == [names[item] for item in past[::-1]]
        assert shown == [names[item] for item in found.lists[n, :10]]
        assert article.findtext("p/b") == names[items[found.positions[n]]]
        hits = [one for one in article.iter("li") if one.get("class") == "hit"]
        assert len(hits) == (found.ranks[n] < 10)
        assert f"ranked {found.ranks[n] + 1}." in "".join(article.itertext())


def test_words_of_the_catalogue_cannot_break_the_page(
    run: Run, report: Report, tmp_path: Path
) -> None:
    hostile = "$title </title></svg><script>alert('&')</script>"
    renamed = run.dataset.attributes.with_columns(title=pl.lit(hostile))
    changed = replace(run, dataset=replace(run.dataset, attributes=renamed))

    write_page(changed, report, tmp_path / "page.html", pca)

    page = (tmp_path / "page.html").read_text()
    assert page.count("<script>") == 1
    assert html.escape(hostile) in page
    for name in SECTIONS:
        ElementTree.fromstring(section(page, name))


def test_a_run_without_features_of_items_has_a_page_too(
    run: Run, report: Report, tmp_path: Path
) -> None:
    bare = replace(run.dataset, attributes=run.dataset.attributes.select("year"))

    write_page(replace(run, dataset=bare), report, tmp_path / "page.html", pca)

    page = (tmp_path / "page.html").read_text()
    assert f">{run.dataset.item_ids[0]}\n" in section(page, "embeddings")
    assert '"c0">other' not in page


def test_a_run_without_targets_has_no_page(run: Run, tmp_path: Path) -> None:
    whole = run.dataset.sequences
    kept = np.arange(len(whole.items)) < 600
    short = whole.keep(kept)._replace(offsets=np.arange(0, 602, 2))
    changed = replace(run, dataset=replace(run.dataset, sequences=short))
    report = evaluate_run(changed, "test", (10,), "exact")

    with pytest.raises(DataError, match="0 users with a test target"):
        write_page(changed, report, tmp_path / "page.html", pca)
    assert report.figures()["exact"] == {}
    assert not (tmp_path / "page.html").exists()


def test_the_command_line_writes_the_page_and_prints_the_buckets(
    run: Run, report: Report, page: str, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    options = ["--k", "10,50", "--backend", "exact", "--report", str(file)]

    done = CliRunner().invoke(main, ["evaluate", str(run.path), *options])

    assert done.exit_code == 0, done.output
    assert file.read_text() == page
    head = report.buckets["head"]
    assert re.search(
        rf"head +{head.items} +{head.targets} +{head.metrics['HR@10']:.4f}", done.output
    )


@pytest.fixture(scope="session")
def chromium() -> str:
    return program("chromium", "chromium")


def test_a_browser_shows_it_wide_and_narrow_without_overflow_or_complaint(
    chromium: str, page: str, tmp_path: Path
) -> None:
    frames = "".join(
        f'<iframe style="width:{width}px" srcdoc="{html.escape(page)}"></iframe>'
        for width in (320, 390, 1200)
    )
    host = tmp_path / "host.html"
    host.write_text(FRAMES.replace("<body>", f"<body>{frames}"))

    done = subprocess.run(
        [chromium, *FLAGS.split(), f"--user-data-dir={tmp_path}", host.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert re.findall(r'data-found="(.*?)"', done.stdout) == ["true 0 epoch 1"] * 3
    assert "CONSOLE" not in done.stderr
