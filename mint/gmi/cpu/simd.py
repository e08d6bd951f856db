"""Vector instructions for the compiled kernels, as portable LLVM vector code.

LLVM compiles them to the machine's own: AVX2, AVX-512, NEON. An index is a tuple. Nothing checks
array bounds: every array is padded to a multiple of LANES.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mint.gmi.cpu.sizes import LANES, TILE_COLUMNS, TILE_ROWS

_BIT, _INT8, _INT32, _INT64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_FLOAT32 = ir.FloatType()


def _pointer(context, builder, array_type, array, indices, target):
    array = context.make_array(array_type)(context, builder, array)
    pointer = cgutils.get_item_pointer(context, builder, array_type, array, indices)
    return builder.bitcast(pointer, target.as_pointer())


def _load(context, builder, array_type, array, indices, element):
    """Load LANES elements from an index on."""
    vector = ir.VectorType(element, LANES)
    return builder.load(_pointer(context, builder, array_type, array, indices, vector), align=1)


def _broadcast(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, _INT32(0))
    zeros = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, undefined, zeros)


def _call(builder, name, result, *arguments):
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


@intrinsic
def at_most_mask(typing_context, stack, matrix, at, limits, row):
    """Bit k of the uint64: stack[i, j, p] + matrix[j, p], saturating, <= limits[row, p]; uint8.

    The index `at` is (i, j, p - k).
    """

    def generate(context, builder, sig, args):
        i, j, first = cgutils.unpack_tuple(builder, args[2])
        places = (0, [i, j, first]), (1, [j, first]), (3, [args[4], first])
        one, other, limit = (
            _load(context, builder, sig.args[k], args[k], indices, _INT8) for k, indices in places
        )
        total = _call(builder, f"llvm.uadd.sat.v{LANES}i8", one.type, one, other)
        return builder.bitcast(builder.icmp_unsigned("<=", total, limit), _INT64)

    return types.uint64(stack, matrix, at, limits, types.intp), generate


@intrinsic
def first_equal(typing_context, values, at, value):
    """Offset from an index of the first of LANES values, of 32 bits, that equals `value`."""

    def generate(context, builder, sig, args):
        indices = cgutils.unpack_tuple(builder, args[1])
        loaded = _load(context, builder, sig.args[0], args[0], indices, _INT32)
        equal = builder.icmp_unsigned("==", loaded, _broadcast(builder, args[2], LANES))
        return _call(builder, "llvm.cttz.i64", _INT64, builder.bitcast(equal, _INT64), _BIT(1))

    return types.intp(values, at, values.dtype), generate


@intrinsic
def lowest_bit(typing_context, mask):
    """Index of the lowest bit that is set in a uint64 other than zero."""

    def generate(context, builder, sig, args):
        return _call(builder, "llvm.cttz.i64", _INT64, args[0], _BIT(1))

    return types.intp(types.uint64), generate


def _reduction(operation, element):
    def reduction(typing_context, values, at):
        def generate(context, builder, sig, args):
            indices = cgutils.unpack_tuple(builder, args[1])
            loaded = _load(context, builder, sig.args[0], args[0], indices, element)
            name = f"llvm.vector.reduce.{operation}.v{LANES}{element}"
            return _call(builder, name, element, loaded)

        return values.dtype(values, at), generate

    return intrinsic(reduction)


# Of the LANES values from an index on.
least_int32 = _reduction("smin", _INT32)
least_uint32 = _reduction("umin", _INT32)
greatest_uint8 = _reduction("umax", _INT8)


@intrinsic
def prefetch(typing_context, values, at):
    """Request the cache line of values[at] before it is used."""

    def generate(context, builder, sig, args):
        indices = cgutils.unpack_tuple(builder, args[1])
        pointer = _pointer(context, builder, sig.args[0], args[0], indices, _INT8)
        # Read access, all levels of the cache, data cache.
        kind = _INT32(0), _INT32(3), _INT32(1)
        _call(builder, "llvm.prefetch.p0i8", ir.VoidType(), pointer, *kind)
        return context.get_dummy_value()

    return types.void(values, at), generate


@intrinsic
def distance_tile(typing_context, points, row, others, column, out, out_row):
    """Write squared distances, float32, of TILE_ROWS points to TILE_COLUMNS points.

    `points` is (n, features), `others` (features, n), and the tile starts at out[out_row, column].
    Features are added in order with a fused multiply-add, so a distance depends neither on its
    place in the matrix nor on the machine.
    """

    def generate(context, builder, sig, args):
        row, column, out_row = args[1], args[3], args[5]
        lanes = 8
        vector = ir.VectorType(_FLOAT32, lanes)

        def plus(index, k):
            return builder.add(index, ir.Constant(index.type, k))

        def pointer(k, indices, target):
            return _pointer(context, builder, sig.args[k], args[k], indices, target)

        tile = [
            (k, plus(column, start), cgutils.alloca_once(builder, vector))
            for k in range(TILE_ROWS)
            for start in range(0, TILE_COLUMNS, lanes)
        ]
        for _, _, total in tile:
            builder.store(ir.Constant(vector, [0.0] * lanes), total)
        shape = context.make_array(sig.args[2])(context, builder, args[2]).shape
        with cgutils.for_range(builder, builder.extract_value(shape, 0)) as loop:
            for k, at, total in tile:
                value = builder.load(pointer(0, [plus(row, k), loop.index], _FLOAT32))
                other = builder.load(pointer(2, [loop.index, at], vector), align=4)
                difference = builder.fsub(_broadcast(builder, value, lanes), other)
                factors = difference, difference, builder.load(total)
                builder.store(_call(builder, f"llvm.fma.v{lanes}f32", vector, *factors), total)
        for k, at, total in tile:
            to = pointer(4, [plus(out_row, k), at], vector)
            builder.store(builder.load(total), to, align=4)
        return context.get_dummy_value()

    return types.void(points, types.intp, others, types.intp, out, types.intp), generate
