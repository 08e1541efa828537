"""pipeline/pair_ids.py: the ids of a column are those of hashlib, row by row."""

import numpy as np
import pyarrow as pa

from pipeline.hashing import pair_id
from pipeline.pair_ids import pair_ids


def test_the_ids_of_a_column_are_the_id_of_each_row() -> None:
    rng = np.random.default_rng(0)
    sizes = [(url, text) for url in (0, 1, 63, 126, 127, 128, 129, 255, 256, 300) for text in (0, 1, 2, 127, 128, 129, 1000)]
    urls = ["".join(rng.choice(list("ab/é"), size=size).tolist()) for size, _ in sizes]
    texts = ["".join(rng.choice(list("ab 京"), size=size).tolist()) for _, size in sizes]
    expected = [pair_id(url, text) for url, text in zip(urls, texts, strict=True)]
    assert pair_ids(pa.array(urls), pa.array(texts)).to_pylist() == expected
    assert pair_ids(pa.array(urls).slice(7, 9), pa.array(texts).slice(7, 9)).to_pylist() == expected[7:16]
    assert pair_ids(pa.array([], pa.string()), pa.array([], pa.string())).to_pylist() == []
