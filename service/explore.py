"""The places of a list that are drawn by chance, alike on every worker."""

from hashlib import blake2b

import numpy as np

from contract.arrays import F32
from service.request import Recall
from service.state import State


def places(share: float, k: int) -> int:
    """How many of k places are a share of them; a half is rounded up."""
    return int(share * k + 0.5)


def generator(state: State, request: Recall, seed: int | None) -> np.random.Generator:
    """Of this seed; without one, the same for the same request, bundle and journal."""
    if seed is None:
        asked = (request.user_id, request.history, state.snapshot.version)
        text = repr((*asked, state.position(request.user_id))).encode()
        seed = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
    return np.random.default_rng(seed)


def perturbed(relevance: F32, temperature: float, rng: np.random.Generator) -> F32:
    """relevance (P,) / temperature, each with Gumbel noise: the order of the n largest is that of n
    draws without replacement from softmax(relevance / temperature) (Kool, van Hoof and Welling,
    "Stochastic Beams and Where to Find Them", ICML 2019)."""
    noise = rng.gumbel(size=len(relevance))
    return (relevance / temperature + noise).astype(np.float32)
