"""Vector instructions for the compiled kernels, as portable LLVM vector code.

LLVM compiles them to the machine's own: AVX2, AVX-512, NEON. Offsets count elements of the flat
array. Nothing checks array bounds: every array is padded to a multiple of LANES.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64
TILE_ROWS, TILE_COLUMNS = 2, 32

_BIT, _INT8, _INT32, _INT64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_FLOAT32 = ir.FloatType()


def _pointer(context, builder, array_type, array, offset, target):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), target.as_pointer())


def _load(context, builder, array_type, array, offset, vector):
    return builder.load(_pointer(context, builder, array_type, array, offset, vector), align=1)


def _store(context, builder, value, array_type, array, offset):
    builder.store(value, _pointer(context, builder, array_type, array, offset, value.type), align=1)


def _broadcast(builder, value, lanes):
    vector = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, _INT32(0))
    zeros = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, undefined, zeros)


def _call(builder, name, result, arguments):
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def _reduce(builder, operation, vector):
    element, lanes = vector.type.element, vector.type.count
    name = f"llvm.vector.reduce.{operation}.v{lanes}i{element.width}"
    return _call(builder, name, element, [vector])


@intrinsic
def at_most_mask(typing_context, x, x_at, y, y_at, limit, limit_at):
    """Bit k of the uint64: x[x_at + k] + y[y_at + k], saturating, <= limit[limit_at + k]; uint8."""

    def generate(context, builder, sig, args):
        vector = ir.VectorType(_INT8, LANES)
        one, other, bound = (
            _load(context, builder, sig.args[k], args[k], args[k + 1], vector) for k in (0, 2, 4)
        )
        total = _call(builder, f"llvm.uadd.sat.v{LANES}i8", vector, [one, other])
        return builder.bitcast(builder.icmp_unsigned("<=", total, bound), _INT64)

    return types.uint64(x, types.intp, y, types.intp, limit, types.intp), generate


@intrinsic
def equal_mask(typing_context, values, at, value):
    """Bit k of the uint64: values[at + k] == value, both int32 or both uint32."""

    def generate(context, builder, sig, args):
        vector = ir.VectorType(_INT32, LANES)
        loaded = _load(context, builder, sig.args[0], args[0], args[1], vector)
        wanted = _broadcast(builder, args[2], LANES)
        return builder.bitcast(builder.icmp_unsigned("==", loaded, wanted), _INT64)

    return types.uint64(values, types.intp, values.dtype), generate


@intrinsic
def lowest_bit(typing_context, mask):
    """Index of the lowest bit that is set in a uint64 other than zero."""

    def generate(context, builder, sig, args):
        return _call(builder, "llvm.cttz.i64", _INT64, [args[0], _BIT(1)])

    return types.intp(types.uint64), generate


def _reduction(operation, element, result):
    def reduction(typing_context, values, at):
        def generate(context, builder, sig, args):
            vector = ir.VectorType(element, LANES)
            loaded = _load(context, builder, sig.args[0], args[0], args[1], vector)
            return _reduce(builder, operation, loaded)

        return result(values, types.intp), generate

    return intrinsic(reduction)


# Of the LANES values from values[at] on.
minimum_uint32 = _reduction("umin", _INT32, types.uint32)
maximum_uint8 = _reduction("umax", _INT8, types.uint8)


@intrinsic
def prefetch(typing_context, values, at):
    """Request the cache line of values[at] before it is used."""

    def generate(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], _INT8)
        # Read access, all levels of the cache, data cache.
        arguments = [pointer, _INT32(0), _INT32(3), _INT32(1)]
        _call(builder, "llvm.prefetch.p0i8", ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(values, types.intp), generate


@intrinsic
def quantise(typing_context, values, out, at, scale):
    """Write LANES values, out = uint8(min(values * scale, 255)); return the least uint8."""

    def generate(context, builder, sig, args):
        lanes, least = 32, None
        floats, small = ir.VectorType(_FLOAT32, lanes), ir.VectorType(_INT8, lanes)
        top = ir.Constant(floats, [255.0] * lanes)
        scales = _broadcast(builder, args[3], lanes)
        for start in range(0, LANES, lanes):
            at = builder.add(args[2], ir.Constant(args[2].type, start))
            loaded = _load(context, builder, sig.args[0], args[0], at, floats)
            product = builder.fmul(loaded, scales)
            clipped = builder.select(builder.fcmp_ordered("<", product, top), product, top)
            whole = builder.fptosi(clipped, ir.VectorType(_INT32, lanes))
            quantised = builder.trunc(whole, small)
            _store(context, builder, quantised, sig.args[1], args[1], at)
            if least is not None:
                less = builder.icmp_unsigned("<", quantised, least)
                quantised = builder.select(less, quantised, least)
            least = quantised
        return _reduce(builder, "umin", least)

    return types.uint8(values, out, types.intp, types.float32), generate


@intrinsic
def distance_tile(
    typing_context,
    rows,
    rows_at,
    rows_stride,
    columns,
    columns_at,
    columns_stride,
    features,
    out,
    out_at,
    out_stride,
):
    """Squared distances, float32, of TILE_ROWS points to TILE_COLUMNS points.

    Points of the rows are stored one after the other, those of the columns feature by feature.
    Features are added in order with a fused multiply-add, so a distance depends neither on its
    place in the matrix nor on the machine.
    """
    index = types.intp
    signature = types.void(rows, index, index, columns, index, index, index, out, index, index)

    def generate(context, builder, sig, args):
        (_, row_at, row_stride, _, column_at, column_stride, count, _, to, to_stride) = args
        lanes = 8
        vector = ir.VectorType(_FLOAT32, lanes)
        zero = ir.Constant(vector, [0.0] * lanes)
        starts = [ir.Constant(row_at.type, part) for part in range(0, TILE_COLUMNS, lanes)]
        sums = [
            [cgutils.alloca_once_value(builder, zero) for _ in starts] for _ in range(TILE_ROWS)
        ]
        for cell in (cell for row in sums for cell in row):
            builder.store(zero, cell)
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
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
                    builder.store(_call(builder, f"llvm.fma.v{lanes}f32", vector, factors), cell)
                value_at = builder.add(value_at, row_stride)
        for row in range(TILE_ROWS):
            for cell, start in zip(sums[row], starts, strict=True):
                total = builder.load(cell)
                _store(context, builder, total, sig.args[7], args[7], builder.add(to, start))
            to = builder.add(to, to_stride)
        return context.get_dummy_value()

    return signature, generate
