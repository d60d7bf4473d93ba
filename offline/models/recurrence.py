"""A recurrent network that starts at the first real item."""

from typing import cast

import torch
from torch import Tensor, nn


class Recurrence(nn.Module):
    """GRU layers over left-padded histories.

    They have no biases of their own: zeros in give zeros out, so that the padding before a history
    leaves no trace, however long it is. The mask is an input, and its weights are the biases.
    """

    def __init__(self, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim + 1, hidden, layers, bias=False, batch_first=True)

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        """(B, W, H), zeros where the mask (B, W) is -> states (B, W, hidden), zeros there too."""
        inputs = torch.cat([history, mask.unsqueeze(2)], dim=2)
        # The exporter would trace every step of the sequence, which takes a minute.
        states = self._onnx(inputs) if torch.compiler.is_exporting() else self.gru(inputs)[0]
        return cast(Tensor, states)

    def _onnx(self, inputs: Tensor) -> Tensor:
        """The same by the GRU of ONNX, whose inputs have the sequence first."""
        states, hidden = inputs.transpose(0, 1), self.gru.hidden_size
        for into, back in self.gru.all_weights:
            states = torch.onnx.ops.symbolic(
                "GRU",
                (states, _update_first(into), _update_first(back)),
                {"hidden_size": hidden, "linear_before_reset": 1},
                dtype=states.dtype,
                shape=(states.shape[0], 1, states.shape[1], hidden),
            ).squeeze(1)
        return states.transpose(0, 1)


def _update_first(weight: Tensor) -> Tensor:
    """(3 hidden, n), gates in the order of torch (reset, update, new) -> (1, 3 hidden, n), in the
    order of ONNX (update, reset, new)."""
    return weight.view(3, -1, weight.shape[1])[[1, 0, 2]].flatten(0, 1).unsqueeze(0)
