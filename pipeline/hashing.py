"""Identity and chance, both hashes of the data: nothing depends on order, batch, part or retry.

source  splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014)
"""

import hashlib

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def pair_id(image_url: str, text: str) -> str:
    """32 hex digits that name the pair; equal exactly for equal URL and text."""
    return hashlib.blake2b(f"{image_url}\n{text}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def string_hash(value: str) -> int:
    """64 bits of `value`, the same on every machine; unlike hash()."""
    return int.from_bytes(hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def pair_hash(pair_ids: list[str]) -> np.ndarray:
    """First 64 bits of each pair_id.  [n] str -> [n] uint64"""
    return np.fromiter((int(value[:16], 16) for value in pair_ids), np.uint64, len(pair_ids))


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: a bijection of 64 bits that changes half of them.  [n] uint64 -> [n] uint64"""
    with np.errstate(over="ignore"):
        values = values + GOLDEN
        values = (values ^ (values >> np.uint64(30))) * MIX_1
        values = (values ^ (values >> np.uint64(27))) * MIX_2
        return values ^ (values >> np.uint64(31))


def draw(seed: int, pair_hashes: np.ndarray, query_ids: np.ndarray) -> np.ndarray:
    """A number that is always the same for the same three, uniform over 64 bits.  [n], [n] -> [n] uint64"""
    key = mix(np.asarray([seed], np.uint64))
    return mix(mix(pair_hashes.astype(np.uint64) ^ key) ^ query_ids.astype(np.uint64))
