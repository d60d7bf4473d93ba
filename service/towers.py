"""The exported towers: arrays in, vectors out. One ONNX Runtime session each, on one thread."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from contract.arrays import F32
from contract.bundle import ITEM_TOWER, USER_TOWER, Bundle
from contract.errors import BundleError
from contract.features import Encoded


class UserTower:
    def __init__(self, bundle: Bundle) -> None:
        self._session = _open(bundle.path / USER_TOWER)
        self._inputs = {node.name for node in self._session.get_inputs()}

    def __call__(self, identity: F32, profile: Encoded, history: F32, mask: F32) -> F32:
        """identity (B, E), profile of B users, history (B, L, H) with the most recent item last,
        mask (B, L) of 1.0 for a real item -> user vectors (B, K, D)."""
        values = {
            "identity": identity,
            "codes": profile.codes,
            "numbers": profile.numbers,
            "history": history,
            "mask": mask,
        }
        vectors: F32 = _run(self._session, self._inputs, values)[0]
        return vectors


class ItemTower:
    def __init__(self, bundle: Bundle) -> None:
        self._session = _open(bundle.path / ITEM_TOWER)
        self._inputs = {node.name for node in self._session.get_inputs()}

    def __call__(self, identity: F32, items: Encoded) -> tuple[F32, F32]:
        """identity (n, E) and n encoded items -> item vectors (n, D), history vectors (n, H)."""
        values = {"identity": identity, "codes": items.codes, "numbers": items.numbers}
        vectors, history = _run(self._session, self._inputs, values)
        return vectors, history


def _open(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # A worker is one process on one core: more threads would only fight each other.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions share no base below Exception.
    except Exception as error:
        first = str(error).splitlines()[0]
        raise BundleError(f"{path}: not a tower that ONNX Runtime loads: {first}") from error


def _run(
    session: ort.InferenceSession, inputs: set[str], values: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[np.float32]]:
    fed = {name: value for name, value in values.items() if name in inputs}
    outputs: list[npt.NDArray[np.float32]] = session.run(None, fed)
    return outputs
