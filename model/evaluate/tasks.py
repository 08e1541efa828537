"""What a task is: kept embeddings in, a result out.

in      a Context: the settings, the embeddings of any split of a set (made when they are first asked for), its classifier
out     a Result, which results.py writes, prints and puts into the report
name    of a task: KIND or KIND:ARGUMENT, what the argument means is the kind's business
adding  a kind: a module with `run` and a line in kinds.py; the module imports torch inside functions, if at all
law     a task reads no picture; what it needs of the model beside embeddings it asks the context for
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import EvalSet
from model.evaluate.embeddings import Embedded

if TYPE_CHECKING:
    from model.evaluate.encoders import Encoder


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Lines for the report."""

    title: str
    x_label: str
    lines: dict[str, tuple[list[float], list[float]]]  # name -> x, y
    y_label: str = ""
    logarithmic_x: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a task found on a set."""

    task: str  # of KINDS
    set: str
    values: dict[str, float]  # numbers by name, shares from 0 to 1; the first is the headline
    num_pictures: int  # that were scored
    unreadable: dict[str, str] = field(default_factory=dict)  # key -> why, of the pictures that could not be
    facts: dict[str, Any] = field(default_factory=dict)  # more for the JSON file
    rows: pa.Table | None = None  # for the Parquet file
    plots: tuple[Plot, ...] = ()


class Context(Protocol):
    """What a task may ask for."""

    config: EvaluateConfig

    def embedded(self, eval_set: EvalSet, split: str) -> Embedded:
        """The embeddings of a split."""
        ...

    def classifier(self, eval_set: EvalSet) -> np.ndarray:
        """The unit text features of the set's classes.  [C, E] float32"""
        ...

    def facts(self) -> dict[str, Any]:
        """objective, logit_scale and logit_bias of the model, as far as it has them."""
        ...

    def encoder(self) -> "Encoder":
        """The model itself: expensive."""
        ...

    def another(self, spec: str) -> EvalSet:
        """Another set, as --sets names it."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task."""

    run: Callable[[Context, EvalSet, str], Result]  # the string is the task's argument
    needs: Callable[[Context, EvalSet, str], dict[str, Any]]  # what its result depends on beside model, set and kind
