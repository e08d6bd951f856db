"""What each kind of operation does to the supports of the entries that it reads."""

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import Tensor

from mint.models.supports import CONSTANT, Reason, Supports, Value, joined, mixed, values_in

# Names of ATen operations, without the underscore of those in place.
SAME = {
    *("contiguous", "clone", "detach", "alias", "to", "_to_copy", "type_as", "lift_fresh_copy"),
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"),
}
NORMS_AND_ACTIVATIONS = {
    *("batch_norm", "instance_norm", "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu"),
    *("selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid"),
    *("log_sigmoid", "tanh", "clamp", "clamp_min", "clamp_max", "softplus", "threshold"),
    *("hardshrink", "softshrink"),
}
MOVES = {
    *("view", "reshape", "_unsafe_view", "view_as", "reshape_as", "flatten", "unflatten"),
    *("permute", "transpose", "t", "numpy_T", "swapaxes", "swapdims", "movedim", "moveaxis"),
    *("squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to", "repeat", "tile"),
    *("repeat_interleave", "slice", "select", "narrow", "chunk", "split", "split_with_sizes"),
    *("unbind", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "roll", "flip"),
    *("rot90", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "index", "index_select"),
    *("gather", "unfold", "as_strided", "diagonal", "tril", "triu", "_reshape_alias"),
    *("tensor_split", "hsplit", "vsplit", "dsplit", "take_along_dim", "atleast_2d"),
}
_FLOAT_MOVES = {"pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "im2col"}
_ADDS = {"add", "sub", "rsub"}
_GATES = {"mul", "div"}
_ENTRYWISE = {
    *NORMS_AND_ACTIVATIONS,
    *_ADDS,
    *_GATES,
    *("neg", "abs", "exp", "log", "log1p", "expm1", "sin", "cos", "tan", "atan", "atan2", "sqrt"),
    *("rsqrt", "square", "pow", "reciprocal", "erf", "logit", "sign", "floor", "ceil", "round"),
    *("where", "masked_fill", "maximum", "minimum", "lerp", "addcmul", "addcdiv", "nan_to_num"),
    *("ge", "gt", "le", "lt", "eq", "ne", "isnan", "isinf", "isfinite", "remainder", "fmod"),
    *("logical_and", "logical_or", "logical_xor", "logical_not"),
    *("bitwise_and", "bitwise_or", "bitwise_not", "floor_divide", "true_divide"),
    *("softsign", "tanhshrink", "quick_gelu"),
}
# Pooling and resizing read and write positions of each channel.
_OVER_SPACE = {
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *("max_pool2d_with_indices", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    *("upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d"),
    *("_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
}
_OVER_DIMS = {
    *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "linalg_vector_norm"),
    *("logsumexp", "prod", "any", "all", "argmax", "argmin", "std_mean", "var_mean", "nansum"),
}
_ALONG_DIM = {"softmax", "log_softmax", "cumsum", "sort", "topk", "_softmax", "glu", "logcumsumexp"}


class LostError(Exception):
    """No rule covers the operation."""


def result(
    supports: Supports, operation: str, arguments: dict[str, Any], shapes: Any, reason: Reason
) -> Any:
    """Return the value of an operation that applies no weight.

    Args:
        supports: the table of supports.
        operation: name of the ATen operation.
        arguments: by name; a Value for each tensor that depends on the input.
        shapes: of the result, or a list of shapes.
        reason: returns why a filter that the operation mixes with others is lost.

    Raises:
        LostError: no rule covers it.
    """
    first = next((each for each in arguments.values() if isinstance(each, Value)), None)
    if operation in SAME and first:
        return first
    if operation in _ENTRYWISE:
        return _entrywise(supports, operation, arguments, reason).expanded(shapes)
    if first is None:
        raise LostError
    dims = len(first.shape)
    if operation in _OVER_SPACE:
        spatial = int(re.findall(r"\d", operation)[-1])
        pooled = mixed(supports, first, range(dims - spatial, dims), reason)
        return _each(pooled, shapes)
    if operation in _OVER_DIMS:
        over = arguments.get("dim")
        over = range(dims) if over is None or over == [] else over
        over = [over] if isinstance(over, int) else list(over)
        reduced = mixed(supports, first, over, reason)
        if not arguments.get("keepdim", False):
            shape = [
                size for dim, size in enumerate(first.shape) if dim not in {d % dims for d in over}
            ]
            reduced = reduced.moved(lambda each: each.reshape(shape))
        return _each(reduced, shapes)
    if operation in _ALONG_DIM:
        along = mixed(supports, first, [arguments.get("dim", -1)], reason)
        return _each(along, shapes)
    if operation in _RULES:
        return _RULES[operation](supports, arguments, shapes, reason)
    raise LostError


def moved(operation: str, target: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Return the value or values of an operation that only moves entries, by the operation itself.

    Raises:
        LostError: it reads positions that depend on the input's values.
    """
    values = values_in((args, kwargs))
    if operation in ("view", "_unsafe_view"):  # which does not copy, and repeated entries need it
        target = torch.reshape

    def run(field: str) -> Any:
        def tensors(each: Any) -> Any:
            if isinstance(each, Value):
                found = getattr(each, field)
                return found.double() if operation in _FLOAT_MOVES else found
            if isinstance(each, list | tuple):
                return type(each)(map(tensors, each))
            if isinstance(each, Tensor) and operation in _CONCATENATING:
                return torch.full((), CONSTANT, dtype=torch.int32).expand(each.shape)
            return each.cpu() if isinstance(each, Tensor) else each

        given = {key: tensors(value) for key, value in kwargs.items()}
        if operation in ("pad", "constant_pad_nd") and given.get("mode", "constant") == "constant":
            given["value"] = float(CONSTANT)
        return target(*tensors(args), **given)

    if isinstance(values[0], Value) and operation in _INDEXED and len(values) > 1:
        raise LostError
    sources = frozenset[str]().union(*(value.sources for value in values))
    numbers, images = run("numbers"), run("images")
    if isinstance(numbers, Tensor):
        return Value.of(numbers, images, sources)
    return [Value.of(*parts, sources) for parts in zip(numbers, images, strict=True)]


_CONCATENATING = {"cat", "concat", "concatenate", "stack", "hstack", "vstack"}
_INDEXED = {"index", "index_select", "gather", "take_along_dim"}


def is_move(operation: str) -> bool:
    return operation in MOVES | _FLOAT_MOVES


def is_sum(operation: str) -> bool:
    return operation in _ADDS


def _each(value: Value, shapes: Any) -> Any:
    """Return a value for each result of an operation, such as maxima and their positions."""
    if isinstance(shapes, list):
        return [value.expanded(shape) for shape in shapes]
    return value.expanded(shapes)


def _entrywise(
    supports: Supports, operation: str, arguments: dict[str, Any], reason: Reason
) -> Value:
    values = [each for each in arguments.values() if isinstance(each, Value)]
    if operation == "batch_norm" and arguments.get("training"):
        dims = [dim for dim in range(len(values[0].shape)) if dim != 1]
        return mixed(supports, values[0], dims, reason)
    if operation == "instance_norm" and arguments.get("use_input_stats"):
        value = values[0]
        return mixed(supports, value, range(2, len(value.shape)), reason)
    if not values:
        raise LostError
    if operation in _GATES:  # the gate is the smaller
        values.sort(key=lambda value: value.numbers.numel(), reverse=True)
    value = values[0]
    for other in values[1:]:
        gate = operation in _GATES and other.numbers.numel() < value.numbers.numel()
        value = joined(supports, value, other, reason, keep_first=gate)
    return value


def _matmul(supports: Supports, a: Value, b: Value, reason: Reason) -> Value:
    """Every entry of the product reads a row of a and a column of b."""
    left = mixed(supports, a, [-1], reason)
    right = mixed(supports, b, [-2], reason)
    return joined(supports, left, right, reason)


def _product(supports: Supports, arguments: dict[str, Any], shapes: Any, reason: Reason) -> Value:
    names = ("batch1", "batch2") if "batch1" in arguments else ("self", "mat2")
    a = arguments[names[0]]
    b = arguments.get(names[1], arguments.get("other"))
    if isinstance(a, Value) and isinstance(b, Value):
        if len(a.shape) < 2 or len(b.shape) < 2:
            raise LostError
        return _matmul(supports, a, b, reason).expanded(shapes)
    if isinstance(a, Value):
        one = mixed(supports, a, [-1], reason)
    else:
        assert isinstance(b, Value)
        one = mixed(supports, b, [-2], reason)
    if len(one.shape) != len(shapes):
        raise LostError
    return one.expanded(shapes)


def _attention(supports: Supports, arguments: dict[str, Any], shapes: Any, reason: Reason) -> Value:
    """Scaled dot-product attention of (..., heads, tokens, dims)."""
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    if not isinstance(value, Value):
        raise LostError
    heads = shapes[-3] if len(shapes) > 3 else None
    gate: Value | None = None
    for each in (query, key):
        if isinstance(each, Value):
            each = _all_heads(mixed(supports, each, [-1, -2], reason), heads)
            gate = each if gate is None else _scores(supports, gate, each, reason)
    out = _all_heads(mixed(supports, value, [-2], reason), heads)
    out = joined(supports, out, gate, reason, keep_first=True) if gate else out
    return out.expanded(shapes)


def _scores(supports: Supports, query: Value, key: Value, reason: Reason) -> Value:
    # One dimension of both, so that their filters become one mixture.
    both = Value.of(
        torch.cat([query.numbers, key.numbers], -1),
        torch.cat([query.images, key.images], -1),
        query.sources | key.sources,
    )
    return mixed(supports, both, [-1], reason)


def _all_heads(value: Value, heads: int | None) -> Value:
    """Repeat the heads that several queries share."""
    if heads is None or value.shape[-3] == heads:
        return value
    times = heads // value.shape[-3]
    return value.moved(lambda each: each.repeat_interleave(times, -3))


def _einsum(supports: Supports, arguments: dict[str, Any], shapes: Any, reason: Reason) -> Value:
    inputs, _, output = arguments["equation"].replace(" ", "").partition("->")
    letters = inputs.split(",")
    operands = arguments["tensors"]
    if "." in inputs or not output or any(len(set(each)) < len(each) for each in letters):
        raise LostError
    out: Value | None = None
    for own, operand in zip(letters, operands, strict=True):
        if not isinstance(operand, Value):
            continue
        summed = [dim for dim, letter in enumerate(own) if letter not in output]
        part = mixed(supports, operand, summed, reason) if summed else operand
        kept = [letter for letter in own if letter in output]

        def aligned(each: Tensor, own: str = own, kept: list[str] = kept) -> Tensor:
            each = each.permute(
                [*(own.index(k) for k in kept), *(d for d, o in enumerate(own) if o not in kept)]
            )
            each = each.reshape(each.shape[: len(kept)])
            each = each.permute([kept.index(letter) for letter in output if letter in kept])
            return each[tuple(slice(None) if letter in kept else None for letter in output)]

        part = part.moved(aligned)
        out = part if out is None else joined(supports, out, part, reason)
    if out is None:
        raise LostError
    return out.expanded(shapes)


def _layer_norm(
    supports: Supports, arguments: dict[str, Any], shapes: Any, reason: Reason
) -> Value:
    value, over = arguments["input"], len(arguments["normalized_shape"])
    return mixed(supports, value, range(-over, 0), reason).expanded(value.shape)


def _group_norm(
    supports: Supports, arguments: dict[str, Any], shapes: Any, reason: Reason
) -> Value:
    value, groups = arguments["input"], arguments["num_groups"]
    grouped = value.moved(lambda each: each.reshape(len(each), groups, -1))
    normed = mixed(supports, grouped, [2], reason).expanded(grouped.shape)
    return normed.moved(lambda each: each.reshape(value.shape))


_RULES: dict[str, Callable[[Supports, dict[str, Any], Any, Reason], Value]] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "baddbmm"), _product),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    "group_norm": _group_norm,
}
