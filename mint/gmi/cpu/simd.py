"""Vector instructions for the compiled kernels, as portable LLVM vector code.

LLVM compiles them to the machine's own: AVX2, AVX-512, NEON. Offsets count elements of the flat
array. Nothing checks array bounds: every array is padded to a multiple of LANES.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64

_BIT, _INT8, _INT32, _INT64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_FLOAT32 = ir.FloatType()

_Signature = tuple[Any, Callable[..., Any]]


def _pointer(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, target: Any
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), target.as_pointer())


def _load(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, vector: Any) -> Any:
    pointer = _pointer(context, builder, array_type, array, offset, vector)
    return builder.load(pointer, align=1)


def _broadcast(builder: Any, value: Any, lanes: int) -> Any:
    vector = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, _INT32(0))
    zeros = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, undefined, zeros)


def _call(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def _reduce(builder: Any, operation: str, vector: Any) -> Any:
    element, lanes = vector.type.element, vector.type.count
    name = f"llvm.vector.reduce.{operation}.v{lanes}i{element.width}"
    return _call(builder, name, element, [vector])


@intrinsic
def at_most_mask(
    typing_context: Any, x: Any, x_at: Any, y: Any, y_at: Any, limit: Any, limit_at: Any
) -> _Signature:
    """Bit k of the uint64: x[x_at + k] + y[y_at + k], saturating, <= limit[limit_at + k]; uint8."""
    signature = types.uint64(x, types.intp, y, types.intp, limit, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(_INT8, LANES)
        one, other, bound = (
            _load(context, builder, sig.args[k], args[k], args[k + 1], vector) for k in (0, 2, 4)
        )
        total = _call(builder, f"llvm.uadd.sat.v{LANES}i8", vector, [one, other])
        return builder.bitcast(builder.icmp_unsigned("<=", total, bound), _INT64)

    return signature, generate


@intrinsic
def equal_mask(typing_context: Any, values: Any, at: Any, value: Any) -> _Signature:
    """Bit k of the uint64: values[at + k] == value, both int32 or both uint32."""
    signature = types.uint64(values, types.intp, values.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(_INT32, LANES)
        loaded = _load(context, builder, sig.args[0], args[0], args[1], vector)
        wanted = _broadcast(builder, args[2], LANES)
        return builder.bitcast(builder.icmp_unsigned("==", loaded, wanted), _INT64)

    return signature, generate


@intrinsic
def lowest_bit(typing_context: Any, mask: Any) -> _Signature:
    """Index of the lowest bit that is set in a uint64 other than zero."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.cttz.i64", _INT64, [args[0], _BIT(1)])

    return types.intp(types.uint64), generate


@intrinsic
def minimum_uint32(typing_context: Any, values: Any, at: Any) -> _Signature:
    """Return the least of LANES uint32 from values[at] on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(_INT32, LANES)
        return _reduce(
            builder, "umin", _load(context, builder, sig.args[0], args[0], args[1], vector)
        )

    return types.uint32(values, types.intp), generate


@intrinsic
def maximum_uint8(typing_context: Any, values: Any, at: Any) -> _Signature:
    """Return the greatest of LANES uint8 from values[at] on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(_INT8, LANES)
        return _reduce(
            builder, "umax", _load(context, builder, sig.args[0], args[0], args[1], vector)
        )

    return types.uint8(values, types.intp), generate


@intrinsic
def bits_of(typing_context: Any, value: Any) -> _Signature:
    """Return the bits of a float32 as uint32; for floats >= 0 both are in the same order."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _INT32)

    return types.uint32(types.float32), generate


@intrinsic
def float_of(typing_context: Any, bits: Any) -> _Signature:
    """Return the float32 that has these uint32 bits."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _FLOAT32)

    return types.float32(types.uint32), generate


@intrinsic
def prefetch(typing_context: Any, values: Any, at: Any) -> _Signature:
    """Ask for the cache line of values[at] ahead of its use."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], _INT8)
        # A read, to be kept in all levels of the data cache.
        arguments = [pointer, _INT32(0), _INT32(3), _INT32(1)]
        _call(builder, "llvm.prefetch.p0i8", ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(values, types.intp), generate


@intrinsic
def quantise(typing_context: Any, values: Any, out: Any, at: Any, scale: Any) -> _Signature:
    """Write LANES values, out = uint8(min(values * scale, 255)); return the least uint8."""
    signature = types.uint8(values, out, types.intp, types.float32)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes, least = 32, None
        floats, bytes_ = ir.VectorType(_FLOAT32, lanes), ir.VectorType(_INT8, lanes)
        top = ir.Constant(floats, [255.0] * lanes)
        scales = _broadcast(builder, args[3], lanes)
        for start in range(0, LANES, lanes):
            at = builder.add(args[2], ir.Constant(args[2].type, start))
            loaded = _load(context, builder, sig.args[0], args[0], at, floats)
            product = builder.fmul(loaded, scales)
            clipped = builder.select(builder.fcmp_ordered("<", product, top), product, top)
            whole = builder.fptosi(clipped, ir.VectorType(_INT32, lanes))
            small = builder.trunc(whole, bytes_)
            builder.store(
                small, _pointer(context, builder, sig.args[1], args[1], at, bytes_), align=1
            )
            if least is None:
                least = small
            else:
                less = builder.icmp_unsigned("<", small, least)
                least = builder.select(less, small, least)
        return _reduce(builder, "umin", least)

    return signature, generate


TILE_ROWS, TILE_COLUMNS = 2, 32


@intrinsic
def distance_tile(
    typing_context: Any,
    rows: Any,
    rows_at: Any,
    rows_stride: Any,
    columns: Any,
    columns_at: Any,
    columns_stride: Any,
    features: Any,
    out: Any,
    out_at: Any,
    out_stride: Any,
) -> _Signature:
    """Squared distances, float32, of TILE_ROWS points to TILE_COLUMNS points.

    The points of the rows lie one behind the other, those of the columns feature by feature.
    Features are added in their order with a fused multiply-add, so a distance depends neither on
    its place in the matrix nor on the machine.
    """
    index = types.intp
    signature = types.void(rows, index, index, columns, index, index, index, out, index, index)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (_, row_at, row_stride, _, column_at, column_stride, count, _, to, to_stride) = args
        lanes = 8
        parts = range(TILE_COLUMNS // lanes)
        vector = ir.VectorType(_FLOAT32, lanes)
        zero = ir.Constant(vector, [0.0] * lanes)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in parts] for _ in range(TILE_ROWS)]
        for cell in (cell for row in sums for cell in row):
            builder.store(zero, cell)
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        starts = [ir.Constant(row_at.type, lanes * part) for part in parts]
        with cgutils.for_range(builder, count) as loop:
            feature_at = builder.add(column_at, builder.mul(loop.index, column_stride))
            others = [
                _load(context, builder, sig.args[3], args[3], builder.add(feature_at, s), vector)
                for s in starts
            ]
            value_at = builder.add(row_at, loop.index)
            for row in range(TILE_ROWS):
                value = _broadcast(builder, builder.load(builder.gep(data, [value_at])), lanes)
                for cell, other in zip(sums[row], others, strict=True):
                    difference = builder.fsub(value, other)
                    factors = [difference, difference, builder.load(cell)]
                    total = _call(builder, f"llvm.fma.v{lanes}f32", vector, factors)
                    builder.store(total, cell)
                value_at = builder.add(value_at, row_stride)
        for row in range(TILE_ROWS):
            for cell, start in zip(sums[row], starts, strict=True):
                at = builder.add(to, start)
                pointer = _pointer(context, builder, sig.args[7], args[7], at, vector)
                builder.store(builder.load(cell), pointer, align=1)
            to = builder.add(to, to_stride)
        return context.get_dummy_value()

    return signature, generate
