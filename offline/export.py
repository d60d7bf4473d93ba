"""Both towers to ONNX, and the proof that they answer as the torch model does."""

import logging
import warnings
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from contract.bundle import ITEM_TOWER, USER_TOWER
from contract.features import Fields, Schema
from offline.models.base import Retriever
from offline.towers import ITEM_INPUTS, USER_INPUTS

# Of the example batch: one row would be taken for a constant.
ROWS = 2


class UserTower(nn.Module):
    def __init__(self, model: Retriever) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)

    def forward(
        self,
        identity: Tensor,
        codes: Tensor,
        numbers: Tensor,
        history: Tensor,
        mask: Tensor,
        kinds: Tensor,
    ) -> Tensor:
        model = cast(Retriever, self.model)
        return model.user_vectors(identity, codes, numbers, history, mask, kinds)


class ItemTower(nn.Module):
    def __init__(self, model: Retriever) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)

    def forward(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        model = cast(Retriever, self.model)
        inputs = model.item_inputs(identity, codes, numbers)
        return model.item_vectors(inputs), model.history_vectors(inputs)


def export_towers(model: Retriever, schema: Schema, directory: Path) -> None:
    """Write user_tower.onnx and item_tower.onnx; the batch size is free, the rest is fixed."""
    cast(nn.Module, model).eval()
    identity, codes, numbers = _example(model.user_identity, schema.users)
    length = schema.history_length
    history = torch.zeros(ROWS, length, model.history_dim)
    mask, kinds = torch.ones(ROWS, length), torch.zeros(ROWS, length, dtype=torch.int32)
    _export(
        UserTower(model),
        (identity, codes, numbers, history, mask, kinds),
        USER_INPUTS,
        ("user_vectors",),
        directory / USER_TOWER,
    )
    _export(
        ItemTower(model),
        _example(model.item_identity, schema.items),
        ITEM_INPUTS,
        ("item_vectors", "history_vectors"),
        directory / ITEM_TOWER,
    )


def _example(identity: nn.Embedding, fields: Fields) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.zeros(ROWS, identity.embedding_dim),
        torch.zeros(ROWS, fields.code_width, dtype=torch.int32),
        torch.zeros(ROWS, fields.number_width),
    )


def _export(
    tower: nn.Module,
    example: tuple[Tensor, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    path: Path,
) -> None:
    batch = torch.export.Dim("batch", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # A bias of attention that asks for gradients changes its layout, and the export fails.
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter's own, about nothing that a caller could change.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
        warnings.filterwarnings("ignore", message="# The axis name: batch will not be used")
        torch.onnx.export(
            tower.eval(),
            example,
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
