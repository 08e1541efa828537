"""Functions compiled by numba: the inner loops of the pipeline.

law     a compiled function frees the interpreter's lock
law     what was compiled is kept in this user's folder of the machine, under the content of the whole package: every copy of
        the same source shares it, as each submitted job's is one, and no function keeps an older one that it calls. Where
        the folder is not ours, numba's own places; NUMBA_CACHE_DIR goes before all; without any, each process compiles
cost    importing numba 0.8 s; the rest is said by who uses it
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import config as numba_config
from numba import njit, types
from numba.core.caching import UserProvidedCacheLocator
from numba.extending import intrinsic

from pipeline import node_cache
from pipeline.errors import InputError

NUM_KEPT = 4  # of the package's contents


@cache
def code_folder(package: str) -> str:
    """Where this machine keeps what was compiled of the sources in the folder `package` as they are now."""
    content = sha256()
    for path in sorted(Path(package).glob("*.py")):
        content.update(path.name.encode() + b"\0" + sha256(path.read_bytes()).digest())
    return node_cache.subfolder("code", content.hexdigest()[:32], NUM_KEPT)


class ByContent(UserProvidedCacheLocator):
    """Tells numba to keep a function's code in `code_folder`."""

    def __init__(self, py_func: Any, py_file: str):
        self._py_file, self._lineno = py_file, py_func.__code__.co_firstlineno
        self._cache_path = code_folder(os.path.dirname(py_file))

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "ByContent | None":
        """As numba asks for it; None where the folder is not to be had."""
        try:
            return super(UserProvidedCacheLocator, cls).from_function(py_func, py_file)
        except InputError:
            return None


SETTINGS: Any = numba_config  # whose attributes numba makes at import, where no type checker sees them
if not SETTINGS.CACHE_DIR:
    SETTINGS.CACHE_LOCATOR_CLASSES = f"{__name__}.ByContent,InTreeCacheLocator,UserWideCacheLocator"


def _kept(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # numba finds no folder to keep it in
        return njit(nogil=True, **options)(function)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call; for functions that Python calls."""
    return _kept(function)


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile into the functions that call it; for functions that only compiled ones call."""
    options: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(**options)(function)


# Options that numba has and does not tell type checkers of: without counting who holds an array; pasted into every caller.
UNCOUNTED: dict[str, Any] = {"_nrt": False}
PASTED: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, without counting who holds an array; for functions that make none, and are given those that Python holds.

    Counts are atomic: where small functions call each other a million times for a picture they take two thirds of the time.
    """
    return _kept(function, **UNCOUNTED)


def bare_inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """`inner` for functions that bare ones call, and not by a call."""
    return njit(nogil=True, **UNCOUNTED, **PASTED)(function)


@intrinsic
def _trailing_zeros(typing_context, value):
    """The number of zero bits below the lowest set bit.  uint64, not 0 -> uint64"""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def _count_bits(typing_context, value):
    """The number of bits that are set.  uint64 -> uint64"""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def _prefetch(typing_context, array, index):
    """Ask for the cache line of array[index] ahead of its use. The index, a uint64, must be inside."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, number(0), number(3), number(1)])  # to read, to stay in all caches, data
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _place_of_word(context, builder, kind, array, index):
    """The pointer to the 64 bits from array[index] on, at any address."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.IntType(64).as_pointer())


@intrinsic
def _load_word(typing_context, array, index):
    """The eight bytes of a uint8 array from `index`, a uint64, on, in this machine's order. All must be inside.  -> uint64"""

    def generate(context, builder, signature, arguments):
        return builder.load(_place_of_word(context, builder, signature.args[0], *arguments), align=1)

    return types.uint64(array, types.uint64), generate


@intrinsic
def _load_big_endian(typing_context, array, index):
    """The eight bytes of a uint8 array from `index`, a uint64, on, the first one highest. All must be inside.  -> uint64"""

    def generate(context, builder, signature, arguments):
        word = builder.load(_place_of_word(context, builder, signature.args[0], *arguments), align=1)
        return builder.bswap(word) if sys.byteorder == "little" else word

    return types.uint64(array, types.uint64), generate


@intrinsic
def _store_word(typing_context, array, index, value):
    """Write eight bytes of a uint8 array from `index`, a uint64, on, in this machine's order. All must be inside."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        builder.store(value, _place_of_word(context, builder, signature.args[0], array, index), align=1)
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64), generate


# As compiled code calls them: numba gives the typing context itself.
trailing_zeros: Callable[..., Any] = _trailing_zeros
count_bits: Callable[..., Any] = _count_bits
prefetch: Callable[..., Any] = _prefetch
load_word: Callable[..., Any] = _load_word
load_big_endian: Callable[..., Any] = _load_big_endian
store_word: Callable[..., Any] = _store_word
