"""Eight doubles as one value of a compiled kernel: SIMD lanes that stay in registers.

The compiler's own vectoriser leaves the state of a recursion in memory between two steps. Here the state
*is* a vector: numba is taught a type whose values are LLVM vectors ``<8 x double>`` [1]_, with ``+ - * /``
among themselves and with scalars, so that a recursion over eight series reads like that over one. A
processor with narrower registers works on the halves or quarters in turn. Multiplications and additions
may be fused where the processor can; the lanes never mix, so the result of a lane depends neither on its
number nor on its neighbours.

References
----------
.. [1] LLVM Language Reference, "Vector Type", https://llvm.org/docs/LangRef.html#vector-type
"""

# ruff: noqa: C901

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

__all__ = ["LANES", "Lanes", "lanes"]

LANES: Final = 8
MANTISSA_BITS: Final = 52
EXPONENT_BIAS: Final = 1023


@dataclass(frozen=True)
class Lanes:
    """What kernels call to make and take apart vectors of eight lanes.

    Attributes:
        load: ``load(array, row)``: row ``row`` of a C-contiguous (rows, 8) array.
        store: ``store(array, row, vector)``.
        splat: ``splat(x)``: the scalar in every lane.
        negative: ``negative(v)``: 1.0 in lanes below zero, 0.0 elsewhere.
        mantissa: ``mantissa(v)``: the m in [1, 2) of v = m 2^k, for normal positive v.
        exponent: ``exponent(v)``: that k as a double.
        root: ``root(v)``: the square root.
    """

    load: Any
    store: Any
    splat: Any
    negative: Any
    mantissa: Any
    exponent: Any
    root: Any


@cache
def lanes() -> Lanes:
    """Teach numba the vector type (once) and return the functions that make and split vectors."""
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.core.extending import intrinsic, lower_builtin, models, register_model
    from numba.core.typing.templates import AbstractTemplate, infer_global, signature

    double = ir.DoubleType()
    vector = ir.VectorType(double, LANES)
    bits = ir.VectorType(ir.IntType(64), LANES)

    class LanesType(types.Type):
        def __init__(self) -> None:
            super().__init__(name=f"lanes{LANES}")

    lane = LanesType()

    @register_model(LanesType)
    class LanesModel(models.PrimitiveModel):
        def __init__(self, dmm: Any, fe_type: Any) -> None:
            super().__init__(dmm, fe_type, vector)

    def constant(of: Any, value: float) -> Any:
        return ir.Constant(of, [value] * LANES)

    def widened(builder: Any, value: Any) -> Any:
        if value.type == vector:
            return value
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

    def arithmetic(function: Callable[..., Any], instruction: str) -> None:
        class Arithmetic(AbstractTemplate):
            def generic(self, args: Any, kws: Any) -> Any:
                if len(args) == 2 and lane in args and set(args) <= {lane, types.float64}:
                    return signature(lane, *args)
                return None

        infer_global(function)(Arithmetic)

        def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            left, right = (widened(builder, value) for value in args)
            return getattr(builder, instruction)(left, right, flags=("contract",))

        for pair in ((lane, lane), (lane, types.float64), (types.float64, lane)):
            lower_builtin(function, *pair)(lowered)

    arithmetic(operator.add, "fadd")
    arithmetic(operator.sub, "fsub")
    arithmetic(operator.mul, "fmul")
    arithmetic(operator.truediv, "fdiv")

    def address(context: Any, builder: Any, array_type: Any, array: Any, row: Any) -> Any:
        data = context.make_array(array_type)(context, builder, array).data
        start = builder.mul(row, ir.Constant(row.type, LANES))
        return builder.bitcast(builder.gep(data, [start]), vector.as_pointer())

    @intrinsic
    def load(typing: Any, array: Any, row: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            where = address(context, builder, sig.args[0], *args)
            return builder.load(where, align=8)

        return lane(array, types.intp), generate

    @intrinsic
    def store(typing: Any, array: Any, row: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.store(args[2], address(context, builder, sig.args[0], *args[:2]), align=8)
            return context.get_dummy_value()

        return types.void(array, types.intp, lane), generate

    @intrinsic
    def splat(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return widened(builder, args[0])

        return lane(types.float64), generate

    @intrinsic
    def negative(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            below = builder.fcmp_ordered("<", args[0], constant(vector, 0.0))
            return builder.select(below, constant(vector, 1.0), constant(vector, 0.0))

        return lane(lane), generate

    @intrinsic
    def mantissa(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            fraction = builder.and_(builder.bitcast(args[0], bits), constant(bits, (1 << MANTISSA_BITS) - 1))
            whole = builder.or_(fraction, constant(bits, EXPONENT_BIAS << MANTISSA_BITS))
            return builder.bitcast(whole, vector)

        return lane(lane), generate

    @intrinsic
    def exponent(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            shifted = builder.lshr(builder.bitcast(args[0], bits), constant(bits, MANTISSA_BITS))
            return builder.sitofp(builder.sub(shifted, constant(bits, EXPONENT_BIAS)), vector)

        return lane(lane), generate

    @intrinsic
    def root(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.FunctionType(vector, [vector])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f64")
            return builder.call(function, args)

        return lane(lane), generate

    return Lanes(load, store, splat, negative, mantissa, exponent, root)
