"""Where samples of stacks go, and what is drawn of them."""

from pathlib import Path
from xml.etree import ElementTree

from benchmarks.bars import draw_bars
from benchmarks.stages import STAGES, stages_of

ROOT = "asyncio_run (uvicorn/_compat.py);Runner.run (asyncio/runners.py)"
ROUND = f"{ROOT};Rounds._go (service/rounds.py:44);_made (service/routes/recall.py:30)"
STACKS = f"""\
_bootstrap (threading.py:1002);_worker (concurrent/futures/thread.py:81) 900
{ROOT} 3
{ROUND} 4
{ROUND};recall_each (service/engine.py);identify (service/asker.py:20);Ids.row (contract/ids.py) 5
{ROUND};nearest_each (service/candidates.py:9);Searcher._ask (contract/index/_faiss.py:70) 60
{ROUND};nearest_each (service/candidates.py:9);Filter.keep (service/filters.py:7);any (numpy) 7
{ROUND};_body (service/routes/recall.py:200);Listed.json (service/listed.py);f (contract/ids.py) 8
"""


def test_a_sample_belongs_to_the_innermost_stage_and_sleeping_threads_to_none() -> None:
    counts = stages_of(STACKS)

    found = {stage: count for stage, count in counts.items() if count}
    assert list(counts) == list(STAGES)
    assert found == {
        "HTTP": 3,
        "round, journal": 4,
        "who asks": 5,
        "search": 60,
        "filter, merge": 7,
        "JSON": 8,
    }


def test_bars_are_as_long_as_what_they_say(tmp_path: Path) -> None:
    bars = {"few <items>": {"a": 100.0, "b": 50.0}, "many": {"a": 300.0, "b": 2.0}}

    draw_bars(bars, "A title", "microseconds", tmp_path / "bars.svg")

    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(tmp_path / "bars.svg").getroot()
    parts = [e for e in root.iter(f"{svg}rect") if e.get("class") == "part"]
    widths = [float(part.get("width", 0)) for part in parts]
    texts = [e.text for e in root.iter(f"{svg}text")]
    assert [round(width / widths[2], 2) for width in widths] == [0.33, 0.17, 1.0, 0.01]
    assert float(parts[1].get("x", 0)) == float(parts[0].get("x", 0)) + widths[0]
    assert {"A title", "microseconds", "few <items>", "150", "302", "300", "50"} <= set(texts)
    assert "2" not in texts  # no room for it
