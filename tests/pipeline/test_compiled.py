"""Compiled functions where nothing can be kept, and the two instructions that numba has no name for."""

import numpy as np

from pipeline.compiled import compiled, inner, prefetch, trailing_zeros


def test_a_function_without_a_place_for_its_code_is_compiled_all_the_same() -> None:
    names: dict[str, object] = {}
    exec("def double(x): return 2 * x", names)  # no file: numba has nowhere to keep it
    assert compiled(names["double"])(21) == 42  # pyright: ignore[reportArgumentType]


def test_the_instructions_do_what_they_say() -> None:
    @inner
    def count(numbers, zeros):
        for i in range(len(numbers)):
            prefetch(numbers, np.uint64(i))
            zeros[i] = trailing_zeros(numbers[i])

    @compiled
    def all_of(numbers, zeros):
        count(numbers, zeros)

    numbers, zeros = np.uint64(1) << np.arange(64, dtype=np.uint64), np.zeros(64, np.int64)
    all_of(numbers | np.uint64(1 << 63), zeros)
    assert zeros.tolist() == list(range(64))
