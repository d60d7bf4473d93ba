"""What each of two processes runs in test_distribute: writes what it found to OUT/<rank>.npz."""

import sys
from pathlib import Path

import numpy as np
import torch

from contract.arrays import I64
from offline import distribute
from offline.optimizer import Optimizer

TABLE, RATE, DECAY, MOST = 6, 0.1, 0.01, 0.5
ROWS = ([0, 2, 5], [2, 3])
"""The rows of the table that each process touches."""


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table, self.dense = torch.nn.Embedding(TABLE, 2), torch.nn.Linear(2, 1)

    def loss(self, known: torch.Tensor, rank: int) -> torch.Tensor:
        """Another one on each process."""
        scored: torch.Tensor = self.dense(known)
        return (scored * (rank + 1)).square().mean()


def main(out: Path) -> None:
    with distribute.group("cpu"):
        rank = distribute.rank()
        shared: I64 = distribute.share(np.arange(7))
        module = Model()
        optimizer = Optimizer(module, [module.table], DECAY)
        for _ in range(3):
            known = optimizer.rows[0].gather(torch.tensor(ROWS[rank]))
            torch.autograd.backward(module.loss(known, rank))
            norm = optimizer.collect(MOST)
            optimizer.step(RATE)
        weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
        total = distribute.summed(1.5, rank)
    left = [thread for thread in threads() if "gloo" in thread]
    np.savez(out / f"{rank}.npz", shared=shared, norm=norm, total=total, left=left, **weights)


def threads() -> list[str]:
    """The names of the threads of this process."""
    return [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
