"""Functions compiled by numba: what every inner loop of the pipeline is decorated with."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code, kept on disk between processes."""
    return njit(nogil=True, cache=True)(function)
