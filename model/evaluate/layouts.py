"""Which files are which evaluation set.

in      --sets: a folder, NAME=FOLDER, or the name of a set that needs no files
out     an EvalSet, and the examples of its units
errors  BadSet
"""

from collections.abc import Iterator

from model.evaluate import arrays, tars
from model.evaluate.datasets import BadSet, EvalSet, Example, Unit


def parse(spec: str) -> tuple[str, str]:
    """The name, or "", and the folder of NAME=FOLDER. Raises BadSet without a folder."""
    given, _, folder = spec.rpartition("=")
    if not folder:
        raise BadSet("evaluate: no evaluation set given; name its folder with --eval-set")
    return given, folder


def open_set(spec: str, name: str = "") -> EvalSet:
    """The set that `spec` means. Raises BadSet where there is none, or not a whole one."""
    given, folder = parse(spec)
    if not given and folder in arrays.BUILT_IN:
        return arrays.open_built_in(folder, name or folder)
    name = name or given or folder.rstrip("/").rsplit("/", 1)[-1]
    return tars.open_set(folder, name)


def examples(eval_set: EvalSet, unit: Unit) -> Iterator[Example]:
    """The pictures of a unit, in their order. Raises BadSet for what is no picture with a label."""
    if unit.layout == "tars":
        return tars.examples(unit, 0 if eval_set.kind == "captions" else len(eval_set.classnames))
    return arrays.examples(unit)
