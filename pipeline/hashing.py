"""Identity and chance, both hashes of the data: nothing depends on order, batch, part or retry.

source  splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014)
"""

import hashlib

import numpy as np
import pyarrow as pa

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
PAIR_ID_CHARS = 32
HASH_CHARS = 16  # of a pair_id: its first 64 bits
NO_DIGIT = 255
HEX_DIGIT = np.full(256, NO_DIGIT, np.uint8)  # value of each ASCII character
for _value, _chars in enumerate([*"0123456789", "aA", "bB", "cC", "dD", "eE", "fF"]):
    HEX_DIGIT[[ord(_char) for _char in _chars]] = _value


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def pair_id(image_url: str, text: str) -> str:
    """32 hex digits that name the pair; equal exactly for equal URL and text."""
    return hashlib.blake2b(f"{image_url}\n{text}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def string_hash(value: str) -> int:
    """64 bits of `value`, the same on every machine; unlike hash()."""
    return int.from_bytes(hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def pair_hash(pair_ids: list[str] | pa.ChunkedArray) -> np.ndarray:
    """First 64 bits of each pair_id.  [n] string -> [n] uint64. ValueError where one is not 32 hex digits."""
    chunks = [pa.array(pair_ids, pa.string())] if isinstance(pair_ids, list) else pair_ids.chunks
    return np.concatenate([np.zeros(0, np.uint64), *(_first_bits(chunk) for chunk in chunks)])


def _first_bits(pair_ids: pa.Array) -> np.ndarray:
    """pair_hash of one array, read from its buffers: a Python loop costs twenty times as much."""
    if not len(pair_ids):
        return np.zeros(0, np.uint64)
    pair_ids = pair_ids.cast(pa.large_string())
    _, offsets, data = pair_ids.buffers()
    edges = np.frombuffer(offsets, np.int64)[pair_ids.offset : pair_ids.offset + len(pair_ids) + 1]
    if pair_ids.null_count or (np.diff(edges) != PAIR_ID_CHARS).any():
        raise ValueError(f"hashing: a pair_id that has not {PAIR_ID_CHARS} hex digits")
    chars = np.frombuffer(data, np.uint8)[edges[0] : edges[-1]].reshape(-1, PAIR_ID_CHARS)[:, :HASH_CHARS]
    digits = HEX_DIGIT[chars]
    if (digits == NO_DIGIT).any():
        raise ValueError(f"hashing: a pair_id that has not {PAIR_ID_CHARS} hex digits")
    octets = digits[:, ::2] << np.uint8(4) | digits[:, 1::2]
    return octets.view(">u8").ravel().astype(np.uint64)


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: a bijection of 64 bits that changes half of them.  [n] uint64 -> [n] uint64"""
    with np.errstate(over="ignore"):
        values = values + GOLDEN
        values = (values ^ (values >> np.uint64(30))) * MIX_1
        values = (values ^ (values >> np.uint64(27))) * MIX_2
        return values ^ (values >> np.uint64(31))


def draw(seed: int, pair_hashes: np.ndarray, query_ids: np.ndarray) -> np.ndarray:
    """A number that is always the same for the same three, uniform over 64 bits.  [n], [n] -> [n] uint64"""
    return draw_by_key(pair_key(seed, pair_hashes), query_ids)


def pair_key(seed: int, pair_hashes: np.ndarray) -> np.ndarray:
    """What the draws of a pair have in common.  [n] uint64 -> [n] uint64"""
    return mix(pair_hashes.astype(np.uint64) ^ mix(np.asarray([seed], np.uint64)))


def draw_by_key(keys: np.ndarray, query_ids: np.ndarray) -> np.ndarray:
    """`draw` where the pairs' keys are known.  [n], [n] -> [n] uint64"""
    return mix(keys ^ query_ids.astype(np.uint64))
