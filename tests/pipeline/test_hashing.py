"""Identity and chance against plain Python, and as statistics say they should be."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from pipeline import hashing
from tests.end_to_end import oracle


@pytest.mark.parametrize("seed", range(5))
def test_draws_are_those_of_plain_integers(seed: int) -> None:
    ids = [hashlib.blake2b(f"{seed}/{i}".encode(), digest_size=16).hexdigest() for i in range(200)]
    queries = np.random.default_rng(seed).integers(0, 500_000, 200).astype(np.uint32)
    drawn = hashing.draw(seed, hashing.pair_hash(ids), queries).tolist()
    key = oracle.mix(seed)
    assert drawn == [oracle.mix(oracle.mix(int(i[:16], 16) ^ key) ^ int(q)) for i, q in zip(ids, queries, strict=True)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_the_hash_of_a_column_is_that_of_each_pair_id_however_it_is_cut(kind: pa.DataType) -> None:
    ids = [hashlib.blake2b(str(i).encode(), digest_size=16).hexdigest() for i in range(50)]
    ids[7] = ids[7].upper()
    column = pa.chunked_array([pa.array(ids[:20], kind).slice(3), pa.array([], kind), pa.array(ids[20:], kind).slice(0, 11)])
    wanted = [int(value[:16], 16) for value in ids[3:31]]
    assert hashing.pair_hash(column).tolist() == hashing.pair_hash(column.to_pylist()).tolist() == wanted
    assert hashing.pair_hash([]).tolist() == []


@pytest.mark.parametrize("bad", ["", "ab", "g" * 32, "0" * 31 + "\u00e9", "0" * 33, None])
def test_what_is_no_pair_id_has_no_hash(bad: str | None) -> None:
    with pytest.raises(ValueError, match="not 32 hex digits"):
        hashing.pair_hash(pa.chunked_array([pa.array(["0" * 32, bad], pa.string())]))


def test_draws_are_uniform_and_do_not_depend_on_each_other() -> None:
    ids = hashing.mix(np.arange(100_000, dtype=np.uint64))
    first = hashing.draw(0, ids, np.full(100_000, 7, np.uint32)) / 2**64
    second = hashing.draw(0, ids, np.full(100_000, 8, np.uint32)) / 2**64
    other_seed = hashing.draw(1, ids, np.full(100_000, 7, np.uint32)) / 2**64
    for values in (first, second, other_seed):
        counts = np.histogram(values, 20, (0, 1))[0]
        chi_square = ((counts - 5000) ** 2 / 5000).sum()
        assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.012
    assert abs(np.corrcoef(first, other_seed)[0, 1]) < 0.012


def test_a_pair_is_its_url_and_its_text() -> None:
    assert hashing.pair_id("http://a/b", "text") == oracle.pair_id("http://a/b", "text")
    assert len({hashing.pair_id(url, text) for url in ("http://a/", "http://b/") for text in ("x", "y")}) == 4
    assert hashing.pair_id("http://a/", "lone \udc80 surrogate") != hashing.pair_id("http://a/", "lone  surrogate")
