import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from contract.errors import RecipeError
from offline.checkpoint import Epoch
from offline.data.dataset import Dataset
from offline.data.synthetic import generate
from offline.data.tables import write_tables
from offline.fit import fit, kept
from offline.recipe import Recipe, read_recipe
from offline.run import load_run
from offline.train import Trained, train
from tests.offline.training import assert_same, changed, trained, weights
from tests.places import ROOT


class Stopped(Exception):
    pass


def stop_after(last: int) -> Callable[[Epoch], None]:
    def report(epoch: Epoch) -> None:
        if epoch.epoch == last:
            raise Stopped

    return report


def ignore(epoch: Epoch) -> None:
    pass


@pytest.fixture(scope="module")
def longer(short: Recipe) -> Recipe:
    return changed(short, training={"epochs": 4, "patience": 4})


@pytest.fixture(scope="module")
def whole(longer: Recipe, tiny: Dataset) -> Trained:
    return trained(longer, tiny)


@pytest.mark.parametrize("last", [1, 3])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    longer: Recipe, tiny: Dataset, whole: Trained, tmp_path: Path, last: int
) -> None:
    with pytest.raises(Stopped):
        train(longer, tiny, "cpu", stop_after(last), tmp_path / "kept")
    torch.manual_seed(99)  # another process has another state
    reported: list[Epoch] = []

    found = train(longer, tiny, "cpu", reported.append, tmp_path / "kept")

    assert [epoch.epoch for epoch in reported] == list(range(last + 1, 5))
    assert_same(found, whole)


def test_a_training_that_was_complete_is_not_repeated(
    longer: Recipe, tiny: Dataset, whole: Trained, tmp_path: Path
) -> None:
    train(longer, tiny, "cpu", ignore, tmp_path / "kept")

    found = train(longer, tiny, "cpu", stop_after(1), tmp_path / "kept")

    assert_same(found, whole)


def test_to_keep_the_state_changes_nothing(
    longer: Recipe, tiny: Dataset, whole: Trained, tmp_path: Path
) -> None:
    assert_same(train(longer, tiny, "cpu", ignore, tmp_path / "kept"), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_the_state_of_another_recipe_or_other_data_is_refused(
    longer: Recipe, tiny: Dataset, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        train(longer, tiny, "cpu", stop_after(1), tmp_path / "kept")
    before = (tmp_path / "kept").read_bytes()

    for recipe, data in ((changed(longer, seed=8), tiny), (longer, dataset)):
        with pytest.raises(RecipeError, match=r"kept: of another recipe or other data; resume wi"):
            train(recipe, data, "cpu", ignore, tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"nonsense"], ids=["empty", "nonsense"])
def test_a_file_that_is_no_state_is_refused(
    longer: Recipe, tiny: Dataset, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "kept").write_bytes(content)

    with pytest.raises(RecipeError, match=r"kept: damaged \(.*\); delete it and train anew$"):
        train(longer, tiny, "cpu", ignore, tmp_path / "kept")


def test_a_state_that_was_cut_short_is_never_seen(
    longer: Recipe, tiny: Dataset, whole: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle of the second state: the first one is still there."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk_at(2))
        with pytest.raises(OSError, match="No space left"):
            train(longer, tiny, "cpu", ignore, tmp_path / "kept")
    reported: list[Epoch] = []

    found = train(longer, tiny, "cpu", reported.append, tmp_path / "kept")

    assert reported[0].epoch == 2
    assert_same(found, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def full_disk_at(call: int) -> Callable[[int], None]:
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == call:
            os.ftruncate(descriptor, 100)
            raise OSError(28, "No space left on device")

    return fsync


RECIPE = ROOT / "recipes" / "demo.toml"
CHANGES = ("training.epochs=12", "training.patience=12", "training.batch=256")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables")
    write_tables(generate(users=150, items=100, interactions=6000, seed=2).tables, path)
    return path


def start(tables: Path, out: Path, *flags: str) -> "subprocess.Popen[str]":
    changes = [part for change in CHANGES for part in ("--set", change)]
    paths = [str(RECIPE), "--data", str(tables), "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "tandem", "train", *paths, *changes, *flags],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_killed_training_is_resumed_to_the_same_run(tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "run"
    with start(tables, out) as killed:
        assert killed.stdout
        for line in killed.stdout:
            if line.startswith("epoch   3"):
                killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert kept(out).exists()

    with start(tables, out, "--resume") as resumed:
        said, _ = resumed.communicate()
    recipe = read_recipe(RECIPE, CHANGES)
    wanted = fit(recipe, tables, tmp_path / "whole", "cpu", lambda line: None)

    assert resumed.returncode == 0
    assert said.startswith(f"goes on from {kept(out)}\n")
    assert "epoch   3" not in said
    assert "epoch  12" in said
    found = load_run(out)
    assert found.description.metrics == wanted.description.metrics
    ours, theirs = weights(found.model), weights(wanted.model)
    assert [name for name in ours if (ours[name] != theirs[name]).any()] == []
    assert sorted(path.name for path in out.parent.iterdir()) == ["run"]


def test_without_resume_what_a_stopped_training_left_is_thrown_away(
    tables: Path, tmp_path: Path
) -> None:
    kept(tmp_path / "run").write_text("left behind")
    recipe = read_recipe(RECIPE, ["training.epochs=1"])
    said: list[str] = []

    run = fit(recipe, tables, tmp_path / "run", "cpu", said.append)

    assert said[0].endswith(
        "run.checkpoint: left by a training that was stopped, deleted; --resume would go on from it"
    )
    assert [epoch.epoch for epoch in run.description.epochs] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_resume_with_nothing_to_go_on_from_starts_at_the_beginning(
    tables: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(RECIPE, ["training.epochs=1"])
    said: list[str] = []

    run = fit(recipe, tables, tmp_path / "run", "cpu", said.append, resume=True)

    assert said[0] == f"no {kept(tmp_path / 'run')}: starts at the beginning"
    assert [epoch.epoch for epoch in run.description.epochs] == [1]
