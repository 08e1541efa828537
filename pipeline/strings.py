"""String columns as compiled code sees them: the bytes of all, and where each ends.

law     from_views(*views(array)) == array
cost    no copies, but for arrays that are slices of others
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def valid(value: str) -> str:
    """The string with U+FFFD for each half of a surrogate pair, as browsers read it: Arrow cannot hold one."""
    return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def views(array: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes [size] uint8, offsets [n + 1] int32) of an array without nulls; read only."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32, len(array) + 1, array.offset * 4) if len(array) else np.zeros(1, np.int32)
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8), ends


def from_views(data: np.ndarray, offsets: np.ndarray) -> pa.StringArray:
    """The array of these bytes, which must be UTF-8, and offsets.  [size] uint8, [n + 1] -> [n]"""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data))


def at(array: pa.StringArray, places: np.ndarray) -> list[str]:
    """The strings at some places."""
    return array.take(pa.array(places)).to_pylist()


def put(array: pa.StringArray, places: np.ndarray, values: Sequence[str]) -> pa.StringArray:
    """The array with other strings at some places, which ascend."""
    if not len(places):
        return array
    sources = np.arange(len(array))
    sources[places] = len(array) + np.arange(len(places))
    return pa.concat_arrays([array, pa.array(values, pa.string())]).take(pa.array(sources))
