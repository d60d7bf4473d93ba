"""The exported towers: arrays in, vectors out. One ONNX Runtime session each, on one thread."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from contract.arrays import F32
from contract.bundle import ITEM_TOWER, USER_TOWER, Bundle
from contract.errors import BundleError
from contract.features import Encoded

ITEM = ("identity", "codes", "numbers")
USER = (*ITEM, "history", "mask")
"""What a tower may be fed; one that does not need all of it has fewer inputs."""


class UserTower:
    def __init__(self, bundle: Bundle) -> None:
        dims = bundle.manifest.dims
        self._session = _open(bundle.path / USER_TOWER, USER, [[dims.interests, dims.dim]])
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._one = _One(self._session, bundle)

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

    def one(self, identity: F32, profile: Encoded, history: F32) -> F32:
        """identity (1, E), profile of one user, the last at most L of their history (n, H), oldest
        first -> user vectors (K, D). For one thread at a time."""
        return self._one(identity, profile, history)


class _One:
    """The user tower for one user, through arrays that are kept: making them anew and handing them
    over takes a third as long as the tower."""

    def __init__(self, session: ort.InferenceSession, bundle: Bundle) -> None:
        dims, schema = bundle.manifest.dims, bundle.manifest.features
        length = schema.history_length
        self._identity = np.zeros((1, dims.user_identity), np.float32)
        self._codes = np.zeros((1, schema.users.code_width), np.int32)
        self._numbers = np.zeros((1, schema.users.number_width), np.float32)
        self._history = np.zeros((1, length, dims.history), np.float32)
        self._mask = np.zeros((1, length), np.float32)
        self._vectors = np.zeros((1, dims.interests, dims.dim), np.float32)
        arrays = {
            "identity": self._identity,
            "codes": self._codes,
            "numbers": self._numbers,
            "history": self._history,
            "mask": self._mask,
        }
        binding = session.io_binding()
        for node in session.get_inputs():
            value = ort.OrtValue.ortvalue_from_numpy(arrays[node.name])
            binding.bind_ortvalue_input(node.name, value)
        (output,) = session.get_outputs()
        binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(self._vectors))
        self._run = partial(session.run_with_iobinding, binding)

    def __call__(self, identity: F32, profile: Encoded, history: F32) -> F32:
        self._identity[:], self._codes[:], self._numbers[:] = identity, *profile
        empty = self._mask.shape[1] - len(history)
        self._history[0, :empty], self._mask[0, :empty] = 0.0, 0.0
        self._history[0, empty:], self._mask[0, empty:] = history, 1.0
        self._run()
        vectors: F32 = self._vectors[0].copy()
        return vectors


class ItemTower:
    def __init__(self, bundle: Bundle) -> None:
        dims = bundle.manifest.dims
        self._session = _open(bundle.path / ITEM_TOWER, ITEM, [[dims.dim], [dims.history]])
        self._inputs = {node.name for node in self._session.get_inputs()}

    def __call__(self, identity: F32, items: Encoded) -> tuple[F32, F32]:
        """identity (n, E) and n encoded items -> item vectors (n, D), history vectors (n, H)."""
        values = {"identity": identity, "codes": items.codes, "numbers": items.numbers}
        vectors, history = _run(self._session, self._inputs, values)
        return vectors, history


def _open(path: Path, inputs: Sequence[str], outputs: list[list[int]]) -> ort.InferenceSession:
    """A tower with no other inputs than these, and with outputs of these shapes, after the batch.
    Raises BundleError."""
    options = ort.SessionOptions()
    # A worker is one process on one core: more threads would only fight each other.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions share no base below Exception.
    except Exception as error:
        first = str(error).splitlines()[0]
        raise BundleError(f"{path}: not a tower that ONNX Runtime loads: {first}") from error
    others = [node.name for node in session.get_inputs() if node.name not in inputs]
    if others:
        raise BundleError(
            f"{path}: has the input '{others[0]}', known are {', '.join(inputs)}; publish the run "
            "again"
        )
    found = [node.shape[1:] for node in session.get_outputs()]
    if found != outputs:
        raise BundleError(
            f"{path}: its outputs are {found} after the batch, the manifest says {outputs}; "
            "publish the run again"
        )
    return session


def _run(
    session: ort.InferenceSession, inputs: set[str], values: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[np.float32]]:
    fed = {name: value for name, value in values.items() if name in inputs}
    outputs: list[npt.NDArray[np.float32]] = session.run(None, fed)
    return outputs
