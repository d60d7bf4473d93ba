import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import TrainingError
from offline import distribute
from offline.run import load_run
from tests.offline import distributed
from tests.offline.distributed import DECAY, MOST, RATE, ROWS, Model

ROOT = Path(__file__).resolve().parents[2]


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*launcher, "-m", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process wrote."""
    out = tmp_path_factory.mktemp("distributed")
    done = torchrun(distributed.__name__, out)
    assert done.returncode == 0, done.stderr
    return [dict(np.load(out / f"{rank}.npz")) for rank in range(2)]


def test_each_process_takes_as_many_batches_and_none_twice(found: list[dict[str, Any]]) -> None:
    assert [f["shared"].tolist() for f in found] == [[0, 2, 4], [1, 3, 5]]


def test_sums_are_those_of_all_processes(found: list[dict[str, Any]]) -> None:
    assert [f["total"].tolist() for f in found] == [[3.0, 1.0]] * 2


def test_a_group_that_ended_has_no_thread_left(found: list[dict[str, Any]]) -> None:
    """One that outlives the interpreter aborts the process."""
    assert [f["left"].tolist() for f in found] == [[], []]


def test_both_end_with_the_weights_of_the_mean_gradient(found: list[dict[str, Any]]) -> None:
    """The reference: one process, one dense optimiser, the mean of both losses. Only the rows that
    a step touches decay and move."""
    module = Model()
    touched = sorted({row for rows in ROWS for row in rows})
    table = module.table.weight.detach().clone()
    mine = torch.nn.Parameter(table[touched])
    adam = torch.optim.AdamW(
        [mine, *module.dense.parameters()], RATE, (0.9, 0.98), weight_decay=DECAY
    )
    for _ in range(3):
        adam.zero_grad()
        known = [mine[[touched.index(row) for row in rows]] for rows in ROWS]
        torch.autograd.backward((module.loss(known[0], 0) + module.loss(known[1], 1)) / 2)
        norm = torch.nn.utils.clip_grad_norm_([mine, *module.dense.parameters()], MOST)
        adam.step()
    table[touched] = mine.detach()

    for process in found:
        np.testing.assert_allclose(process["table.weight"], table, atol=1e-6)
        np.testing.assert_allclose(process["dense.weight"], module.dense.weight.detach(), atol=1e-6)
        assert float(process["norm"]) == pytest.approx(float(norm), rel=1e-5)


def test_two_processes_train_one_run(tmp_path: Path) -> None:
    from offline.data.synthetic import generate
    from offline.data.tables import write_tables

    write_tables(generate(users=200, items=100, interactions=6_000, seed=2).tables, tmp_path)
    changes = ("training.batch=128", "training.epochs=3", "training.learning_rate=0.02")
    settings = [part for change in changes for part in ("--set", change)]

    done = torchrun(
        "tandem",
        "train",
        "recipes/demo.toml",
        "--data",
        tmp_path,
        "--out",
        tmp_path / "run",
        *settings,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1") == 1
    run = load_run(tmp_path / "run")
    assert [epoch.epoch for epoch in run.description.epochs] == [1, 2, 3]
    assert run.description.epochs[2].loss < 0.95 * run.description.epochs[0].loss
    assert run.description.metrics["HR@10"] > 0.2
    assert not (tmp_path / ".run.checkpoint").exists()


def test_alone_a_process_has_everything() -> None:
    assert distribute.share(np.arange(3)).tolist() == [0, 1, 2]
    assert distribute.summed(2.0) == [2.0]
    at, gradient = torch.tensor([4, 1]), torch.ones(2, 3)
    assert distribute.average_rows(at, gradient) == (at, gradient)


def test_fewer_batches_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribute, "size", lambda: 4)

    with pytest.raises(TrainingError, match="3 batches for 4 processes, expected one each"):
        distribute.share(np.arange(3))
