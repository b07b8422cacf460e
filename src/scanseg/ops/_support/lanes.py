"""Vectorized operations on rows of `LANES` numbers, for compiled CPU kernels.

Numba calls the C library for `exp`, one number at a time, and LLVM cannot prove that two arrays do not overlap, so it
uses no vector instructions on short rows. The functions here emit LLVM code instead. They take flat arrays and the
index of the first number of a row. Numbers need not be finite: NaN stays NaN.

This module imports numba, so only modules that always need numba may import it. Numba's cache on disk does not detect
changes here. After a change, also touch the module of the kernels.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from scanseg.ops._support.cpu import LANES

_CONTRACT = ("contract",)  # allows one instruction for a multiplication and an addition, and nothing else


class _Format(NamedTuple):
    """Constants of a floating-point format for exp and log1p.

    The degrees of the polynomials leave errors below the rounding of the format.
    """

    bits: int
    mantissa: int
    bias: int
    exp_degree: int
    log_terms: int
    log2_high: float  # log(2) = high + low. An integer times high is exact.
    log2_low: float


_FORMATS = {
    types.float32: _Format(32, 23, 127, 7, 8, 0.693359375, -2.12194440054690583e-4),
    types.float64: _Format(64, 52, 1023, 14, 18, 6.93147180369123816490e-01, 1.90821492927058770002e-10),
}


def _horner(builder: Any, x: Any, coefficients: list[float]) -> Any:
    """Emit a polynomial from its coefficients, lowest power first."""
    total = ir.Constant(x.type, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        product = builder.fmul(total, x, flags=_CONTRACT)
        total = builder.fadd(product, ir.Constant(x.type, coefficient), flags=_CONTRACT)
    return total


@intrinsic
def exp_nonpositive(typing_context: Any, x: Any) -> Any:
    """Compute exp(x) for x <= 0.

    The result is accurate to one unit in the last place. A result in the subnormal range becomes 0.
    """
    form = _FORMATS[x]

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments

        def number(constant: float) -> Any:
            return ir.Constant(value.type, constant)

        # For smaller values the exponent field is 0, and so is the result.
        lowest = number(-math.floor(form.bias * math.log(2)))
        value = builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)
        # Adding 1.5 * 2^mantissa rounds to an integer, which the lowest bits then hold.
        rounder = number(1.5 * 2**form.mantissa)
        shifted = builder.fadd(builder.fmul(value, number(1 / math.log(2))), rounder)
        whole = builder.fsub(shifted, rounder)
        rest = value
        for part in (form.log2_high, form.log2_low):
            product = builder.fmul(whole, number(part), flags=_CONTRACT)
            rest = builder.fsub(rest, product, flags=_CONTRACT)
        series = _horner(builder, rest, [1 / math.factorial(power) for power in range(form.exp_degree + 1)])
        integer = ir.IntType(form.bits)
        exponent = builder.add(builder.bitcast(shifted, integer), ir.Constant(integer, form.bias))
        power = builder.shl(exponent, ir.Constant(integer, form.mantissa))
        return builder.fmul(series, builder.bitcast(power, value.type))

    return x(x), emit


@intrinsic
def log1p_of_unit(typing_context: Any, x: Any) -> Any:
    """Compute log(1 + x) for x in [0, 1].

    The formula is 2 artanh(x / (2 + x)). The relative error is small on the whole interval.
    """
    form = _FORMATS[x]

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        s = builder.fdiv(value, builder.fadd(value, ir.Constant(value.type, 2.0)))
        terms = [2 / (2 * power + 1) for power in range(form.log_terms)]
        return builder.fmul(s, _horner(builder, builder.fmul(s, s), terms))

    return x(x), emit


def _vector(scalar: Any) -> Any:
    return ir.VectorType(scalar, LANES)


def _row_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Emit a pointer to the row that starts at `index`."""
    data = context.make_array(array_type)(context, builder, array).data
    scalar = context.get_value_type(array_type.dtype)
    return builder.bitcast(builder.gep(data, [index]), _vector(scalar).as_pointer())


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    pointer = _row_pointer(context, builder, array_type, array, index)
    return builder.load(pointer, align=array_type.dtype.bitwidth // 8)


def _store(context: Any, builder: Any, value: Any, array_type: Any, array: Any, index: Any) -> Any:
    pointer = _row_pointer(context, builder, array_type, array, index)
    builder.store(value, pointer, align=array_type.dtype.bitwidth // 8)
    return context.get_dummy_value()


def _spread(builder: Any, scalar: Any) -> Any:
    """Emit a row with one number in all lanes."""
    nothing = ir.Constant(_vector(scalar.type), ir.Undefined)
    single = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, nothing, ir.Constant(_vector(ir.IntType(32)), [0] * LANES))


@intrinsic
def copy_row(typing_context: Any, target: Any, at: Any, source: Any, start: Any) -> Any:
    """Compute target[at + c] = source[start + c] in all lanes c."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row = _load(context, builder, source, *arguments[2:])
        return _store(context, builder, row, target, *arguments[:2])

    return types.void(target, at, source, start), emit


def _scaled(*, add: bool) -> Callable[..., Any]:
    """Create the typing function of `scale_row` and `add_scaled_row`."""

    def typed(typing_context: Any, target: Any, at: Any, source: Any, start: Any, factor: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            row = _load(context, builder, source, *arguments[2:4])
            row = builder.fmul(row, _spread(builder, arguments[4]), flags=_CONTRACT)
            if add:
                row = builder.fadd(row, _load(context, builder, target, *arguments[:2]), flags=_CONTRACT)
            return _store(context, builder, row, target, *arguments[:2])

        return types.void(target, at, source, start, factor), emit

    return typed


def _multiplied(*, add: bool) -> Callable[..., Any]:
    """Create the typing function of `multiply_rows` and `add_product_of_rows`."""

    def typed(
        typing_context: Any, target: Any, at: Any, left: Any, left_start: Any, right: Any, right_start: Any
    ) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            first = _load(context, builder, left, *arguments[2:4])
            row = builder.fmul(first, _load(context, builder, right, *arguments[4:]), flags=_CONTRACT)
            if add:
                row = builder.fadd(row, _load(context, builder, target, *arguments[:2]), flags=_CONTRACT)
            return _store(context, builder, row, target, *arguments[:2])

        return types.void(target, at, left, left_start, right, right_start), emit

    return typed


scale_row = intrinsic(_scaled(add=False))
"""target[at + c] = factor * source[start + c]."""

add_scaled_row = intrinsic(_scaled(add=True))
"""target[at + c] += factor * source[start + c]."""

multiply_rows = intrinsic(_multiplied(add=False))
"""target[at + c] = left[left_start + c] * right[right_start + c]."""

add_product_of_rows = intrinsic(_multiplied(add=True))
"""target[at + c] += left[left_start + c] * right[right_start + c]."""


@intrinsic
def dot_of_rows(typing_context: Any, left: Any, left_start: Any, right: Any, right_start: Any) -> Any:
    """Compute sum_c left[left_start + c] * right[right_start + c], by halves."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = _load(context, builder, left, *arguments[:2])
        row = builder.fmul(first, _load(context, builder, right, *arguments[2:]))
        lanes = LANES
        while lanes > 1:
            lanes //= 2
            index = ir.VectorType(ir.IntType(32), lanes)
            halves = [
                builder.shuffle_vector(row, row, ir.Constant(index, list(range(start, start + lanes))))
                for start in (0, lanes)
            ]
            row = builder.fadd(*halves)
        return builder.extract_element(row, ir.Constant(ir.IntType(32), 0))

    return left.dtype(left, left_start, right, right_start), emit
