"""Compiled functions where nothing can be kept, and the two instructions that numba has no name for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.compiled import compiled, count_bits, inner, prefetch, trailing_zeros


def test_a_function_without_a_place_for_its_code_is_compiled_all_the_same() -> None:
    names: dict[str, object] = {}
    exec("def double(x): return 2 * x", names)  # no file: numba has nowhere to keep it
    assert compiled(names["double"])(21) == 42  # pyright: ignore[reportArgumentType]


CALLS = "from pipeline.compiled import compiled\nfrom pack.called import add\n\n\n@compiled\ndef f(x):\n    return add(x)\n"
CALLED = "from pipeline.compiled import inner\n\n\n@inner\ndef add(x):\n    return x + {number}\n"
PACKAGE = {"__init__.py": "", "called.py": CALLED, "calls.py": CALLS}
PROGRAM = "from pack.calls import f; print(f(1), sum(f.stats.cache_hits.values()))"


@pytest.mark.parametrize(("change", "printed"), [(False, "2 1"), (True, "3 0")])
def test_another_copy_of_the_same_source_finds_what_was_compiled_and_a_changed_one_does_not(
    tmp_path: Path, change: bool, printed: str
) -> None:
    def run(copy: str, number: int) -> str:
        folder = tmp_path / copy / "pack"
        folder.mkdir(parents=True)
        for name, source in PACKAGE.items():
            (folder / name).write_text(source.format(number=number))
        places = {"PYTHONPATH": f"{folder.parent}{os.pathsep}{Path(__file__).parents[2]}", "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(command, env={**os.environ, **places}, check=True, capture_output=True, text=True).stdout.strip()

    assert run("one", 1) == "2 0"
    assert run("two", 2 if change else 1) == printed  # what changes is another file than the compiled function's own


def test_the_instructions_do_what_they_say() -> None:
    @inner
    def count(numbers, zeros, ones):
        for i in range(len(numbers)):
            prefetch(numbers, np.uint64(i))
            zeros[i], ones[i] = trailing_zeros(numbers[i]), count_bits(numbers[i])

    @compiled
    def all_of(numbers, zeros, ones):
        count(numbers, zeros, ones)

    numbers, zeros, ones = np.uint64(1) << np.arange(64, dtype=np.uint64), np.zeros(64, np.int64), np.zeros(64, np.int64)
    all_of(~(numbers - np.uint64(1)), zeros, ones)
    assert zeros.tolist() == list(range(64))
    assert ones.tolist() == list(range(64, 0, -1))
