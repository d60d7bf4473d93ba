"""Several processes that train one model: each takes its share of the batches, and all average
their gradients, so that every process holds the same weights after every step.

    torchrun --nproc-per-node 2 -m tandem train RECIPE --data DIR --out RUN

torchrun sets RANK, WORLD_SIZE and the address that the processes meet at; without it there is one.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

# Its functions take the group of the moment they are imported as their default and hold it for
# ever. Imported inside a group, by torch.optim, it would keep the group's threads alive to the end
# of the interpreter, where one that returns a tensor then aborts the process.
import torch.distributed.nn.functional
from torch import Tensor

from contract.arrays import I64
from contract.errors import TrainingError

PATIENCE = timedelta(minutes=30)
"""A process waits so long for the others; one that embeds a large catalogue takes its time."""


@contextmanager
def group(device: str) -> Iterator[None]:
    """Join the processes that torchrun started, for as long as the block runs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # What is counted stands on the CPU, also where the weights do not.
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def leads() -> bool:
    """Whether this is the process that reports and writes."""
    return rank() == 0


def place(device: str) -> str:
    """The device of this process: of several GPUs each takes its own."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and size() > 1 else device


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def meet() -> None:
    """Wait until every process is here."""
    if size() > 1:
        dist.barrier()


def share(items: I64) -> I64:
    """Those that this process takes of what all have in the same order: as many as each other."""
    if size() == 1:
        return items
    if len(items) < size():
        raise TrainingError(
            f"{len(items)} batches for {size()} processes, expected one each at least; "
            "lower training.batch or start fewer processes"
        )
    return items[rank() : len(items) - len(items) % size() : size()]


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in one message."""
    if size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= size()
    at = 0
    for tensor in tensors:
        tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
        at += tensor.numel()


def summed(*values: float) -> list[float]:
    """Each value, summed over the processes."""
    total = torch.tensor(values, dtype=torch.float64)
    if size() > 1:
        dist.all_reduce(total)
    found: list[float] = total.tolist()
    return found


def average_rows(at: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows (n,) of a table and their gradients (n, E), of this process -> the rows that
    any process touched, ascending, and their mean gradients."""
    if size() == 1:
        return at, gradient
    ats, gradients = _gather(at), _gather(gradient)
    rows, place = torch.unique(torch.cat(ats), return_inverse=True)
    total = gradient.new_zeros(len(rows), gradient.shape[1])
    total.index_add_(0, place, torch.cat(gradients))
    return rows, total / size()


def _gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all processes, whose lengths may differ."""
    lengths = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(size())]
    dist.all_gather(lengths, lengths[0].new_tensor([len(tensor)]))
    longest = int(max(lengths))
    padded = tensor.new_zeros(longest, *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]
