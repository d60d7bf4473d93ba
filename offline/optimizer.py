"""Adam for models with large tables: dense for the towers, by row for the identities.

A step touches a few thousand rows of a table of millions. Only these are read and written, with
their moments (the lazy variant: a row's moments rest while it is not touched). Decay of the weights
is decoupled (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from offline.distribute import average, average_rows

BETAS, EPSILON = (0.9, 0.98), 1e-8


class Rows:
    """Rows of a table, gathered for one step, and the moments of all of them."""

    def __init__(self, table: nn.Embedding) -> None:
        self.table = table.weight.detach()
        self.first, self.second = torch.zeros_like(self.table), torch.zeros_like(self.table)
        self.steps = torch.zeros(len(self.table), 1, device=self.table.device)
        self._gathered = torch.empty(0, dtype=torch.int64), torch.empty(0)
        self.at, self.gradient = self._gathered

    def gather(self, at: Tensor) -> Tensor:
        """at (n,), distinct -> (n, E), what the backward pass gives gradients to."""
        self._gathered = at, self.table[at].requires_grad_()
        return self._gathered[1]

    def collect(self) -> None:
        """Take the gradients of the last backward pass, of all processes."""
        at, leaf = self._gathered
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        self.at, self.gradient = average_rows(at, gradient)

    @torch.no_grad()
    def update(self, rate: float, decay: float) -> None:
        at, gradient = self.at, self.gradient
        steps = self.steps[at] + 1
        first = self.first[at].lerp_(gradient, 1 - BETAS[0])
        second = self.second[at].lerp_(gradient * gradient, 1 - BETAS[1])
        self.steps[at], self.first[at], self.second[at] = steps, first, second
        root = (second / (1 - BETAS[1] ** steps)).sqrt_().add_(EPSILON)
        change = first / (1 - BETAS[0] ** steps) / root
        self.table[at] = self.table[at] * (1 - rate * decay) - rate * change


class Optimizer:
    def __init__(self, model: nn.Module, tables: Sequence[nn.Embedding], decay: float) -> None:
        """`tables` are updated by row, all other parameters of the model densely."""
        apart = {id(table.weight) for table in tables}
        self.rows = [Rows(table) for table in tables]
        self.dense = [p for p in model.parameters() if id(p) not in apart]
        self.decay = decay
        self._adam = torch.optim.AdamW(
            self.dense, betas=BETAS, eps=EPSILON, weight_decay=decay, fused=True
        )

    def collect(self, most: float) -> float:
        """Take the gradients of the last backward pass, of all processes, and scale them down to an
        L2 norm of at most `most` together; what it was."""
        gradients = [p.grad for p in self.dense if p.grad is not None]
        average(gradients)
        for rows in self.rows:
            rows.collect()
            gradients.append(rows.gradient)
        norm = float(nn.utils.get_total_norm(gradients))
        if norm > most:
            torch._foreach_mul_(gradients, most / norm)
        return norm

    def step(self, rate: float) -> None:
        """Change the weights by the gradients that were collected."""
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for rows in self.rows:
            rows.update(rate, self.decay)

    def state_dict(self) -> dict[str, Any]:
        rows = [{"first": r.first, "second": r.second, "steps": r.steps} for r in self.rows]
        return {"adam": self._adam.state_dict(), "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adam.load_state_dict(state["adam"])
        for rows, saved in zip(self.rows, state["rows"], strict=True):
            for name, tensor in saved.items():
                getattr(rows, name).copy_(tensor)
