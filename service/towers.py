"""The exported towers: arrays in, vectors out. One ONNX Runtime session each, on one thread."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from contract.arrays import F32, I32, U8
from contract.bundle import ITEM_TOWER, USER_TOWER, Bundle
from contract.errors import BundleError
from contract.features import Encoded

ITEM = ("identity", "codes", "numbers")
USER = (*ITEM, "history", "mask", "kinds")
"""What a tower may be fed; one that does not need all of it has fewer inputs."""
FEW = 16
"""Users that the user tower takes at once through arrays that are kept."""


class UserTower:
    def __init__(self, bundle: Bundle) -> None:
        dims = bundle.manifest.dims
        self._session = _open(bundle.path / USER_TOWER, USER, [[dims.interests, dims.dim]])
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._kept = _Kept(self._session, bundle)

    @property
    def tells_apart(self) -> bool:
        """Whether it reads several histories."""
        return "kinds" in self._inputs

    def __call__(self, identity: F32, profile: Encoded, history: F32, mask: F32, kinds: I32) -> F32:
        """identity (B, E), profile of B users, history (B, L, H) with the most recent item last,
        mask (B, L) of 1.0 for a real item, kinds (B, L) of the history that it belongs to -> user
        vectors (B, K, D)."""
        values = {
            "identity": identity,
            "codes": profile.codes,
            "numbers": profile.numbers,
            "history": history,
            "mask": mask,
            "kinds": kinds,
        }
        vectors: F32 = _run(self._session, self._inputs, values)[0]
        return vectors

    def places(self, lengths: Sequence[int]) -> list[F32]:
        """Where the histories of B users go, (n, H) each, oldest first: B at most FEW, n at most L.
        For one thread at a time."""
        return self._kept.places(lengths)

    def tell_apart(self, kinds: Sequence[U8]) -> None:
        """To which history each item in the places belongs, where `tells_apart`."""
        self._kept.tell_apart(kinds)

    def few(self, identity: F32, profiles: Sequence[Encoded]) -> F32:
        """identity (B, E) and profiles of one user each, whose histories are in their places ->
        user vectors (B, K, D)."""
        return self._kept(identity, profiles)


class _Kept:
    """The user tower for few users, through arrays that are kept: making them anew and handing them
    over takes a third as long as the tower for one."""

    def __init__(self, session: ort.InferenceSession, bundle: Bundle) -> None:
        dims, schema = bundle.manifest.dims, bundle.manifest.features
        length = schema.history_length
        self._session = session
        self._identity = np.zeros((FEW, dims.user_identity), np.float32)
        self._codes = np.zeros((FEW, schema.users.code_width), np.int32)
        self._numbers = np.zeros((FEW, schema.users.number_width), np.float32)
        self._history = np.zeros((FEW, length, dims.history), np.float32)
        self._mask = np.zeros((FEW, length), np.float32)
        self._kinds = np.zeros((FEW, length), np.int32)
        self._vectors = np.zeros((FEW, dims.interests, dims.dim), np.float32)
        self._runs: dict[int, Callable[[], None]] = {}

    def places(self, lengths: Sequence[int]) -> list[F32]:
        whole = self._mask.shape[1]
        for at, length in enumerate(lengths):
            if length < whole or not self._mask[at, 0]:
                empty = whole - length
                self._history[at, :empty] = 0.0
                self._mask[at, :empty], self._mask[at, empty:] = 0.0, 1.0
        return [self._history[at, whole - length :] for at, length in enumerate(lengths)]

    def tell_apart(self, kinds: Sequence[U8]) -> None:
        for place, own in zip(self._kinds, kinds, strict=False):
            place[len(place) - len(own) :] = own

    def __call__(self, identity: F32, profiles: Sequence[Encoded]) -> F32:
        count = len(profiles)
        self._identity[:count] = identity
        for at, (codes, numbers) in enumerate(profiles):
            self._codes[at], self._numbers[at] = codes[0], numbers[0]
        if count not in self._runs:
            self._runs[count] = self._bound(count)
        self._runs[count]()
        vectors: F32 = self._vectors[:count].copy()
        return vectors

    def _bound(self, count: int) -> Callable[[], None]:
        """Runs the tower on the first `count` users of the arrays."""
        arrays = {
            "identity": self._identity,
            "codes": self._codes,
            "numbers": self._numbers,
            "history": self._history,
            "mask": self._mask,
            "kinds": self._kinds,
        }
        binding = self._session.io_binding()
        for node in self._session.get_inputs():
            value = ort.OrtValue.ortvalue_from_numpy(arrays[node.name][:count])
            binding.bind_ortvalue_input(node.name, value)
        (output,) = self._session.get_outputs()
        vectors = ort.OrtValue.ortvalue_from_numpy(self._vectors[:count])
        binding.bind_ortvalue_output(output.name, vectors)
        return partial(self._session.run_with_iobinding, binding)


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
