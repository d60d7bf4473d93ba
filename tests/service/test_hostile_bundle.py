"""Bundles and journals of any bytes: refused with an error of ours or read, and nothing else."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.bundle import open_bundle
from contract.errors import BundleError, JournalError, TandemError
from contract.graph import check_tower
from contract.journal import Entry, open_journal
from contract.manifest import parse_manifest, read_manifest
from contract.store import LocalStore
from service.snapshot import load_snapshot
from tests.conftest import COLD, ITEMS, live
from tests.contract.test_bundle import replace, rewrite
from tests.service.conftest import BACKENDS

EXAMPLES = int(os.environ.get("TANDEM_EXAMPLES", "60"))
HOSTILE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="TANDEM_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)


class Spoiling(NamedTuple):
    """Some bytes replaced, taken out or put in, and the end cut off; places are shares of the
    length."""

    edits: list[tuple[float, int, bytes]]
    kept: float

    def of(self, content: bytes) -> bytes:
        for share, taken, put in self.edits:
            at = round(share * len(content))
            content = content[:at] + put + content[at + taken :]
        return content[: round(self.kept * len(content))]


shares = st.floats(0, 1)
spoilings = st.builds(
    Spoiling,
    st.lists(st.tuples(shares, st.integers(0, 16), st.binary(max_size=16)), max_size=4),
    st.just(1.0) | shares,
)


@contextmanager
def refused_at_most(kind: type[TandemError], named: Path) -> Iterator[None]:
    """What is within succeeds or raises this, in one line that names the file."""
    try:
        yield
    except kind as error:
        if str(named) not in str(error) or "\n" in str(error):
            raise AssertionError(f"says too little: {error}") from error


@pytest.fixture(scope="module")
def good(shelf: LocalStore) -> Path:
    return live(shelf)


@pytest.fixture(scope="module")
def journal_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    with closing(open_journal(str(path))) as journal:
        journal.append([Entry("item", {"item_id": f"x{n}", "features": {}}) for n in range(9)])
    return path.read_bytes()


@HOSTILE
@given(which=shares, spoiling=spoilings)
def test_a_bundle_with_a_spoilt_file_is_refused_or_loads(
    good: Path, which: float, spoiling: Spoiling
) -> None:
    names = sorted(path.name for path in good.iterdir())
    name = names[round(which * (len(names) - 1))]
    content = spoiling.of((good / name).read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(good, Path(folder) / good.name)
        if name == "manifest.json":
            rewrite(copy / name, content)
        else:
            replace(copy, name, content)
        with refused_at_most(BundleError, named=copy):
            assert load_snapshot(copy).items == ITEMS + COLD


@HOSTILE
@given(channel=st.sampled_from(BACKENDS), which=shares, spoiling=spoilings)
def test_no_damage_gets_past_the_checksums_to_a_library(
    shelf: LocalStore, channel: str, which: float, spoiling: Spoiling
) -> None:
    """The readers of FAISS, Annoy and ONNX are not made for damaged files."""
    pointed = shelf.channel(channel)
    assert pointed
    sound = shelf.bundle(pointed.version)
    files = sorted(read_manifest(sound).files)
    name = files[round(which * (len(files) - 1))]
    content = (sound / name).read_bytes()
    if spoiling.of(content) == content:
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(sound, Path(folder) / sound.name)
        rewrite(copy / name, spoiling.of(content))
        with pytest.raises(BundleError, match=rf"{name}: (sha256|[\d,]+ bytes, the manifest says)"):
            open_bundle(copy)


@HOSTILE
@given(content=st.binary())
def test_any_bytes_as_a_manifest_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"^manifest\.json: "):
        parse_manifest(content, "manifest.json")


@HOSTILE
@given(content=st.binary())
def test_any_bytes_as_a_tower_are_refused_or_walked_to_the_end(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        with refused_at_most(BundleError, named=Path(file.name)):
            check_tower(Path(file.name))


@HOSTILE
@given(spoiling=spoilings, other=st.none() | st.binary())
def test_a_spoilt_journal_is_refused_or_read(
    journal_bytes: bytes, spoiling: Spoiling, other: bytes | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        path.write_bytes(spoiling.of(journal_bytes) if other is None else other)
        with refused_at_most(JournalError, named=path), closing(open_journal(str(path))) as journal:
            read = journal.read(0)
            journal.append([Entry("item", {"item_id": "x", "features": {}})])
            assert len(journal.read(0)) == len(read) + 1
