"""What is remembered of a bundle that was checked whole, and what makes it be checked again."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.bundle import open_bundle
from contract.checked import CHECKS, TICK_SECONDS, Checked
from contract.errors import BundleError
from contract.store import LocalStore
from tests.conftest import live
from tests.service.server import wait_until

ARRAY = "history_vectors.npy"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checked.json"


@pytest.fixture
def checked(file: Path) -> Checked:
    return Checked(file)


@pytest.fixture
def fresh(published: LocalStore, tmp_path: Path) -> Path:
    """A sound bundle, written just now."""
    return copy(published, tmp_path / "bundles")


@pytest.fixture(scope="module")
def copies(published: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Sound bundles that have not been changed for long enough."""
    root = tmp_path_factory.mktemp("copies")
    made = [copy(published, root / str(number)) for number in range(12)]
    settle(made[-1])
    return iter(made)


@pytest.fixture
def bundle(copies: Iterator[Path]) -> Path:
    return next(copies)


def copy(store: LocalStore, bundles: Path) -> Path:
    path = bundles / live(store).name
    shutil.copytree(live(store), path)
    return path


def settle(bundle: Path) -> None:
    newest = max(file.stat().st_ctime for file in bundle.iterdir())
    wait_until(lambda: time.time() > newest + TICK_SECONDS, "the clock to move on")


def looked_at(bundle: Path) -> dict[str, os.stat_result]:
    return {file.name: file.lstat() for file in bundle.iterdir()}


def damage(bundle: Path) -> None:
    """Another last byte, with the size and the time of modification as they were."""
    file = bundle / ARRAY
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_bundle_is_opened_alike_the_second_time(
    bundle: Path, checked: Checked, file: Path
) -> None:
    first, second = open_bundle(bundle, checked), open_bundle(bundle, checked)

    assert list(json.loads(file.read_text())) == [str(bundle)]
    assert second.manifest == first.manifest
    assert [n for n, array in first.arrays.items() if (second.arrays[n] != array).any()] == []


def test_what_is_remembered_is_not_read_again(bundle: Path, checked: Checked) -> None:
    """Said to have been checked as it is, a damaged bundle is opened."""
    damage(bundle)
    settle(bundle)
    with pytest.raises(BundleError, match=ARRAY):
        open_bundle(bundle, checked)
    with checked.once(bundle, looked_at(bundle)) as known:
        assert not known

    assert open_bundle(bundle, checked).path == bundle


def test_a_change_is_found_whose_traces_were_covered(bundle: Path, checked: Checked) -> None:
    open_bundle(bundle, checked)
    damage(bundle)
    settle(bundle)

    for _ in range(2):
        with pytest.raises(BundleError, match=f"{ARRAY}: sha256"):
            open_bundle(bundle, checked)


def test_a_change_in_the_same_tick_could_not_be_told(
    fresh: Path, checked: Checked, file: Path
) -> None:
    open_bundle(fresh, checked)

    assert file.read_text() == ""


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}'])
def test_whatever_the_file_holds_the_bundle_is_checked(
    bundle: Path, checked: Checked, file: Path, content: str
) -> None:
    file.write_text(content)

    open_bundle(bundle, checked)

    assert list(json.loads(file.read_text())) == [str(bundle)]


def test_without_its_file_all_is_checked(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checked = Checked(tmp_path / "nowhere" / "checked.json")
    open_bundle(bundle, checked)
    damage(bundle)

    with pytest.raises(BundleError, match=ARRAY):
        open_bundle(bundle, checked)
    assert (
        caplog.messages
        == [
            f"{tmp_path}/nowhere/checked.json: No such file or directory; bundles are checked whole"
        ]
        * 2
    )


def test_a_release_that_checks_more_checks_again(
    bundle: Path, checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bundle(bundle, checked)
    monkeypatch.setattr("contract.checked.CHECKS", CHECKS + 1)

    with checked.once(bundle, looked_at(bundle)) as known:
        assert not known


def test_bundles_that_are_gone_are_forgotten(bundle: Path, checked: Checked, file: Path) -> None:
    open_bundle(bundle, checked)
    moved = bundle.parent / "other" / bundle.name
    moved.parent.mkdir()
    bundle.rename(moved)
    settle(moved)

    open_bundle(moved, checked)

    assert list(json.loads(file.read_text())) == [str(moved)]


def test_who_comes_second_waits_and_then_knows(bundle: Path, file: Path) -> None:
    """Each opens the file for itself, as processes do."""
    files, found = looked_at(bundle), []

    def second() -> None:
        with Checked(file).once(bundle, files) as known:
            found.append(known)

    with Checked(file).once(bundle, files) as known:
        other = threading.Thread(target=second)
        other.start()
        assert not known
        assert found == []
    other.join()

    assert found == [True]
