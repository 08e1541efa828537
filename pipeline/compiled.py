"""Functions compiled by numba: the inner loops of the pipeline.

law     a compiled function frees the interpreter's lock
law     what was compiled is kept beside the source, else in the user's cache (numba's NUMBA_CACHE_DIR goes before both);
        where neither can be written it is compiled in each process
cost    importing numba 0.8 s; the rest is said by who uses it
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call; for functions that Python calls."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba finds no folder to keep it in
        return njit(nogil=True)(function)


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile into the functions that call it; for functions that only compiled ones call."""
    options: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(**options)(function)


@intrinsic
def _trailing_zeros(typing_context, value):
    """The number of zero bits below the lowest set bit.  uint64, not 0 -> uint64"""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

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


# As compiled code calls them: numba gives the typing context itself.
trailing_zeros: Callable[..., Any] = _trailing_zeros
prefetch: Callable[..., Any] = _prefetch
