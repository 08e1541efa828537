"""Draw all pictures so that no two are near each other, except for the copies that are meant to be.

in      drawings, and copies as (name, name of the original, how)
out     Made for each name
law     two different pictures differ by MIN_DISTANCE bits of the hash or by MIN_COLOR in some cell of the colour grid
cost    about 1 ms a picture and core; the check of all pairs 1 s for 10,000 pictures
"""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from infra.mini import pictures
from infra.mini.pictures import Drawing, Made

MIN_DISTANCE, MIN_COLOR = 12, 80
MAX_ATTEMPTS = 200
ROWS = 512  # of the matrix of all pairs at a time
POOL_FROM = 2000  # pictures; fewer are drawn faster without a second process


def _make(seed: int, task: tuple[Drawing, int]) -> Made:
    return pictures.make(seed, *task)


def near_pairs(hashes: np.ndarray, colors: np.ndarray, rows: np.ndarray) -> list[tuple[int, int]]:
    """(i, j) with i in `rows`, j any other picture that is too near to i.  uint64 [n], int16 [n, 48], [m] -> pairs"""
    found = []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        bits = np.bitwise_count(hashes[part, None] ^ hashes[None, :])
        i, j = np.nonzero(bits < MIN_DISTANCE)
        i, j = part[i][part[i] != j], j[part[i] != j]
        close = np.abs(colors[i] - colors[j]).max(axis=1) < MIN_COLOR
        found += zip(i[close].tolist(), j[close].tolist(), strict=True)
    return found


def draw_all(seed: int, drawings: list[Drawing], num_workers: int) -> dict[str, Made]:
    """Draw each until it is far from all others; of two that are too near, the later one is drawn again."""
    attempts = [0] * len(drawings)
    made: list[Made | None] = [None] * len(drawings)
    hashes, colors = np.zeros(len(drawings), np.uint64), np.zeros((len(drawings), 48), np.int16)
    todo = list(range(len(drawings)))
    pool = ProcessPoolExecutor(num_workers, get_context("spawn")) if num_workers > 1 and len(todo) >= POOL_FROM else None
    try:
        while todo:
            tasks = [(drawings[i], attempts[i]) for i in todo]
            run = partial(_make, seed)
            results = list(pool.map(run, tasks, chunksize=64) if pool else map(run, tasks))
            for i, result in zip(todo, results, strict=True):
                made[i], hashes[i], colors[i] = result, result.phash, result.colors
            again = {max(pair) for pair in near_pairs(hashes, colors, np.array(todo))}
            again |= {i for i, result in zip(todo, results, strict=True) if not result.good}
            for i in again:
                attempts[i] += 1
                if attempts[i] > MAX_ATTEMPTS:
                    raise RuntimeError(f"infra.mini: {drawings[i]} cannot be drawn apart from the others")
            todo = sorted(again)
    finally:
        if pool:
            pool.shutdown()
    return {what.name: result for what, result in zip(drawings, made, strict=True) if result is not None}


def copy_near(seed: int, name: str, original: Made, how: str) -> Made:
    """A copy that this package's own measure calls the same picture."""
    for attempt in range(MAX_ATTEMPTS):
        made = pictures.copy(seed, name, original.data, how, attempt)
        if pictures.near(original, made):
            return made
    raise RuntimeError(f"infra.mini: no {how} copy of {name} is near enough to its original")
