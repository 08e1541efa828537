"""Sets whose pictures are numbers in arrays.

digits  scikit-learn's 1,797 digits of 8 x 8 pixels (Alpaydin and Kaynak 1998): there when scikit-learn is, 10 classes. Test:
        every picture whose place is divisible by 4 (450); train: the others (1,347)
compare the 8 x 8 digits are not MNIST, and their splits are ours: their numbers stand beside nobody's
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from model.evaluate import texts
from model.evaluate.datasets import EvalSet, Example, Split, Unit

BUILT_IN = ("digits",)
TEST_EVERY = 4


def open_built_in(known_as: str, name: str) -> EvalSet:
    """A set that a package brings along."""
    pictures, labels = _digits()
    places = np.arange(len(labels))
    splits = {}
    for split, rows in (("train", places[places % TEST_EVERY > 0]), ("test", places[places % TEST_EVERY == 0])):
        digest = hashlib.sha256(pictures[rows].tobytes() + labels[rows].tobytes()).hexdigest()
        splits[split] = Split(units=(Unit("digits", split),), pictures=digest)
    found = texts.read(known_as, "")
    classnames = tuple(first for first, *_ in found.names)
    return EvalSet(
        name=name, names=found.names, classnames=classnames, templates=found.templates, splits=splits, source=known_as
    )  # fmt: skip


def examples(unit: Unit) -> Iterator[Example]:
    """The pictures of a split."""
    pictures, labels = _digits()
    for place in range(len(labels)):
        if (place % TEST_EVERY == 0) == (unit.path == "test"):
            yield Example(key=f"{place:04d}", picture=pictures[place], labels=(int(labels[place]),))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels and digits.  uint8 [n, 8, 8], int64 [n]"""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return np.minimum(found.images * 16, 255).astype(np.uint8), found.target.astype(np.int64)
