"""Both towers to ONNX, and the proof that they answer as the torch model does."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from contract.bundle import ITEM_TOWER, USER_TOWER
from contract.features import Fields, Schema
from offline.models.base import Retriever

USER_INPUTS = ("identity", "codes", "numbers", "history", "mask")
ITEM_INPUTS = ("identity", "codes", "numbers")
# Of the example batch: one row would be taken for a constant.
ROWS = 2


class UserTower(nn.Module):
    def __init__(self, model: Retriever) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)

    def forward(
        self, identity: Tensor, codes: Tensor, numbers: Tensor, history: Tensor, mask: Tensor
    ) -> Tensor:
        model = cast(Retriever, self.model)
        return model.user_vectors(identity, codes, numbers, history, mask)


class ItemTower(nn.Module):
    def __init__(self, model: Retriever) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)

    def forward(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        return cast(Retriever, self.model).encode_items(identity, codes, numbers)


def export_towers(model: Retriever, schema: Schema, directory: Path) -> None:
    """Write user_tower.onnx and item_tower.onnx; the batch size is free, the rest is fixed."""
    cast(nn.Module, model).eval()
    identity, codes, numbers = _example(model.user_identity, schema.users)
    history = torch.zeros(ROWS, schema.history_length, model.history_dim)
    _export(
        UserTower(model),
        (identity, codes, numbers, history, torch.ones(ROWS, schema.history_length)),
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


class Towers(NamedTuple):
    """The exported towers, run as the service runs them: ONNX Runtime on one thread."""

    user: ort.InferenceSession
    item: ort.InferenceSession

    @classmethod
    def open(cls, directory: Path) -> "Towers":
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return cls(
            *(
                ort.InferenceSession(directory / name, options, providers=["CPUExecutionProvider"])
                for name in (USER_TOWER, ITEM_TOWER)
            )
        )


def run_tower(
    session: ort.InferenceSession, inputs: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[np.float32]]:
    """An exporter leaves out inputs that a model does not use, so only the wanted ones are fed."""
    wanted = {node.name for node in session.get_inputs()}
    outputs: list[npt.NDArray[np.float32]] = session.run(
        None, {name: array for name, array in inputs.items() if name in wanted}
    )
    return outputs


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
    with warnings.catch_warnings():
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
