"""How the numerical kernels are compiled: once, with fixed signatures, into numba's cache.

A kernel is a function of arrays in a module whose name ends in ``_kernels``; those modules alone import
numba, and they are imported inside the functions that call them, so that importing the statistics stays
light. Signatures are written out: compilation happens when the module is imported (or is read from the
cache), never in the middle of a computation, and an array of another type is a clear error.

Kernels divide as the hardware does (``error_model="numpy"``: the default's zero-division branch keeps the
compiler from using SIMD [1]_) and release the interpreter lock, so that threads share a universe.

References
----------
.. [1] Numba, "Performance tips", https://numba.readthedocs.io/en/stable/user/performance-tips.html
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from inspect import getsource
from types import ModuleType
from typing import Any, Final, TypeVar, cast
from zlib import crc32

__all__ = ["KERNEL_MODULES", "compile_kernels", "in_threads", "inlined", "kernel"]

Function = TypeVar("Function", bound=Callable[..., Any])
Item = TypeVar("Item")
Result = TypeVar("Result")

KERNEL_MODULES: Final = (
    "garch_platform.quant.pairs.confirmation_kernels",
    "garch_platform.quant.feature_kernels",
    "garch_platform.quant.pairs.pair_kernels",
    "garch_platform.quant.pairs.scan_kernels",
    "garch_platform.quant.stability_kernels",
    "garch_platform.quant.volatility.garch_kernels",
    "garch_platform.quant.volatility.variance_kernels",
)
"""Every module that holds kernels, for `compile_kernels`."""


def kernel(
    *signatures: str, fastmath: bool | frozenset[str] = False, uses: Iterable[ModuleType] = ()
) -> Callable[[Function], Function]:
    """Compile a function for the given numba signatures and keep the machine code in the cache.

    Args:
        signatures: such as ``"void(f8[:, ::1], f8[::1], i8)"``; the first is tried first.
        fastmath: flags of LLVM that may reorder sums (``{"reassoc", "contract"}``); results then depend
            on the processor's vector width in the last bits, so never where bits must agree.
        uses: other modules whose inlined functions the kernel calls: the cache then follows their source
            too (numba's own follows the kernel's file only).
    """
    import numba

    def decorate(function: Function) -> Function:
        compiled: Any = numba.njit(
            cache=True,
            nogil=True,
            error_model="numpy",
            fastmath=set(fastmath) if isinstance(fastmath, frozenset) else fastmath,
        )(function)
        index = compiled._cache._cache_file  # noqa: SLF001
        stamps = (crc32(getsource(module).encode()) for module in uses)
        index._source_stamp = (index._source_stamp, *stamps)  # noqa: SLF001
        for signature in signatures:
            compiled.compile(signature)
        compiled.disable_compile()
        return cast("Function", compiled)

    return decorate


def inlined(function: Function) -> Function:
    """Compile a helper into the kernels of its own module that call it (numba's cache is kept by file)."""
    import numba

    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    return cast("Function", compiled)


def compile_kernels() -> Iterator[str]:
    """Compile every kernel, or load it from the cache; yields each module's name before it is loaded."""
    for name in KERNEL_MODULES:
        yield name
        importlib.import_module(name)


def in_threads(function: Callable[[Item], Result], items: list[Item], *, workers: int) -> list[Result]:
    """Results of ``function`` for all items, in order, computed by ``workers`` threads.

    Kernels release the interpreter lock, so threads run side by side without copies; a thread pool also
    avoids numba's own parallel layer, which can hang beside another library's threads.
    """
    if workers <= 1 or len(items) <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(max_workers=min(workers, len(items))) as pool:
        return list(pool.map(function, items))
