"""What users have published stays readable: a bundle and a journal of every format that there was,
with the answers that they gave. See tests/contract/golden/make.py for what is in them."""

import hashlib
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from contract import manifest
from contract.journal import Entry, open_journal, sqlite
from service.conditions import from_json
from service.engine import recall
from service.request import Recall
from service.snapshot import load_snapshot
from service.state import State
from tests.contract.golden import make

BUNDLES = sorted(make.HERE.glob("format-*"))
JOURNALS = sorted(make.HERE.glob("journal-*.db"))
DIGESTS = {
    "format-1": "b8b668d9647c4976",
    "journal-1.db": "8a6eb05d350c1d09",
}
"""Of the manifest, which holds those of the other files, and of the journal."""

Found = list[tuple[str, float, str]]


def answer(state: State, user_id: str | None = None, **more: object) -> tuple[str, Found]:
    conditions = from_json(more.pop("filters", {}), state.attributes)  # type: ignore[arg-type]
    request = Recall(k=4, user_id=user_id, conditions=conditions, **more)  # type: ignore[arg-type]
    answered = recall(state, request)
    return answered.source, [(i.item_id, i.score, i.source) for i in answered.items]


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def state(request: pytest.FixtureRequest) -> State:
    return State.of(load_snapshot(request.param), max_user_events=10, journal=1)


@pytest.fixture(params=JOURNALS, ids=lambda path: path.name)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(shutil.copy(request.param, tmp_path))


def test_there_is_one_of_every_format_and_none_was_changed() -> None:
    assert [path.name for path in BUNDLES] == [f"format-{n}" for n in range(1, manifest.FORMAT + 1)]
    assert [path.name for path in JOURNALS] == [
        f"journal-{n}.db" for n in range(1, sqlite.FORMAT + 1)
    ]
    files = [*(path / manifest.NAME for path in BUNDLES), *JOURNALS]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files]
    assert dict(zip(DIGESTS, digests, strict=True)) == DIGESTS


def test_a_golden_bundle_answers_as_ever(state: State) -> None:
    assert answer(state, "u") == ("model", [("b", 1.5625, "bundle")])
    best = [("c", 1.0, "bundle"), ("a", 0.5625, "bundle")]
    assert answer(state, "v") == ("model", best)
    assert answer(state, "v", exclude=["c"]) == ("model", best[1:])
    assert answer(state, "v", exclude_seen=False) == ("model", [("b", 1.625, "bundle"), *best])
    assert answer(state, "v", filters={"year": {"lt": 2000}}) == ("model", best[:1])
    assert answer(state, "v", filters={"genre": "comedy"}) == ("model", [])
    session = [("b", 1.0, "bundle"), ("a", 0.4375, "bundle")]
    assert answer(state, history=["c"]) == ("session", session)
    source, items = answer(state, "nobody")
    assert (source, [item for item, *_ in items]) == ("fallback", ["a", "b", "c"])


def test_a_golden_journal_is_applied_and_written_to_as_ever(state: State, written: str) -> None:
    with closing(open_journal(written)) as opened:
        records = opened.read(0)
        assert opened.append([Entry("event", {"user_id": "w", "item_id": "a"})]) == range(4, 5)
    state.apply(records)

    assert [record.kind for record in records] == ["item", "event", "delete"]
    new = ("e", 1.1875, "overlay")
    assert answer(state, "v") == ("model", [new, ("c", 1.0, "bundle"), ("a", 0.5625, "bundle")])
    seen = [("a", 1.1875, "bundle"), ("c", 0.8125, "bundle")]
    assert answer(state, "w") == ("session", seen)
