"""The exported towers, run as the service runs them: ONNX Runtime on one thread."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from contract.arrays import F32, I64
from contract.bundle import ITEM_TOWER, USER_TOWER, Bundle
from contract.features import Encoded

USER_INPUTS = ("identity", "codes", "numbers", "history", "mask", "kinds")
ITEM_INPUTS = ("identity", "codes", "numbers")
BLOCK = 4096


class Towers(NamedTuple):
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


def user_vectors(towers: Towers, bundle: Bundle, users: I64) -> F32:
    """The vectors (B, K, D) of users (B,) of the bundle out of nothing but its arrays; of an
    unknown one, -1, they are of no use."""
    length, dims = bundle.manifest.features.history_length, bundle.manifest.dims
    history = np.zeros((len(users), length, dims.history), np.float32)
    mask = np.zeros((len(users), length), np.float32)
    kinds = np.zeros((len(users), length), np.int32)
    for n, user in enumerate(users.tolist()):
        rows, numbers = (one[-length:] for one in bundle.history(user))
        history[n, length - len(rows) :] = bundle.history_vectors[rows]
        mask[n, length - len(rows) :] = 1.0
        kinds[n, length - len(rows) :] = numbers
    profile = bundle.users.codes[users], bundle.users.numbers[users]
    values = (bundle.user_identity[users + 1], *profile, history, mask, kinds)
    return run_tower(towers.user, dict(zip(USER_INPUTS, values, strict=True)))[0]


def item_vectors(towers: Towers, identity: F32, items: Encoded) -> tuple[F32, F32]:
    """identity (n, E) and n encoded items -> item vectors (n, D), history vectors (n, H)."""
    blocks = [
        run_tower(towers.item, dict(zip(ITEM_INPUTS, values, strict=True)))
        for start in range(0, len(identity), BLOCK)
        for values in [[part[start : start + BLOCK] for part in (identity, *items)]]
    ]
    vectors, history = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return vectors, history
