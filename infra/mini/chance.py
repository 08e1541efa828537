"""Chance for the generator: a NumPy generator that is a function of its keys."""

import hashlib

import numpy as np


def rng(*keys: object) -> np.random.Generator:
    """The random numbers that belong to `keys`; equal keys give equal numbers on every machine."""
    digest = hashlib.blake2b("/".join(map(str, keys)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
