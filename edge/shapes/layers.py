"""Rules of what learns: convolutions, fully connected layers, norms, scales and shifts, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .call import BATCH_AXIS, LONGEST, Call, Check, Shape

SAMPLES = (BATCH_AXIS,)


def window_outputs(
    c: Call, space: Shape, kernel: Sequence[int], dilations: Sequence[int], whole: bool = False
) -> Shape:
    """Return the places of a window along every axis.

    Args:
        c: has attributes `strides` and `pads`.
        space: lengths of the axes.
        kernel: elements of the window along each.
        dilations: and their distances.
        whole: refuse windows that lie in the padding altogether.
    """
    rank = len(space)
    strides, pads = c.integers("strides", rank, 1), c.integers("pads", 2 * rank)
    found = []
    for axis, size in enumerate(space):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        padded = size + pads[axis] + pads[rank + axis]
        out = (padded - reach) // strides[axis] + 1
        if not reach <= padded <= LONGEST or (
            whole and (pads[axis] >= reach or (out - 1) * strides[axis] - pads[axis] >= size)
        ):
            around = f"{pads[axis]}, {pads[rank + axis]}"
            c.fail(f"windows of {reach} elements, expected ones that fit {size} padded by {around}")
        found.append(out)
    return tuple(found)


def conv(x: str, w: str, y: str, *, slots: bool = False) -> Check:
    """A convolution and its gradients: x (N, I, ...), w (O, I/groups, ...), y; `slots`: x has some of I only."""

    def check(c: Call) -> None:
        source = c.shape(x, 3, 4)
        kernel = c.any_shape(w, len(source))
        groups, channels = c.integer("groups", 1), kernel[1] * c.integer("groups", 1)
        if slots and source[1] <= channels:
            channels = source[1]
        c.expect(x, (BATCH_AXIS, channels, *source[2:]))
        if kernel[0] % groups:
            c.fail(f"{w} makes {kernel[0]} channels, expected a multiple of groups, {groups}")
        dilations = c.integers("dilations", len(source) - 2, 1)
        c.expect(y, (BATCH_AXIS, kernel[0], *window_outputs(c, source[2:], kernel[2:], dilations)))

    return check


def conv_with_bias(c: Call) -> None:
    """b (O,)."""
    conv("x", "w", "y")(c)
    c.expect("b", c.any_shape("w")[:1])


def conv_weight_grad(c: Call) -> None:
    """Weights of samples, and fw, bw for every channel of x and gy."""
    conv("x", "gw", "gy")(c)
    weighted(c, fw=c.shape("x")[1], bw=c.shape("gy")[1])


def conv_weight_grad_sparse(c: Call) -> None:
    """The channels kept of x and their numbers."""
    conv("kept", "gw", "gy", slots=True)(c)
    c.expect("index", c.shape("kept")[:2])
    weighted(c, bw=c.shape("gy")[1])


def weighted(c: Call, **channels: int) -> None:
    """`sample_weight` (N,), and attention (N, channels) by operand."""
    c.expect("sample_weight", SAMPLES)
    for name, count in channels.items():
        c.expect(name, (BATCH_AXIS, count))


def fc(x: str, w: str, y: str) -> Check:
    """x (N, ..., I), w (O, I), y (N, ..., O)."""

    def check(c: Call) -> None:
        source, (outputs, inputs) = c.shape(x, 2), c.any_shape(w, 2)
        c.expect(x, (*source[:-1], inputs))
        c.expect(y, (*source[:-1], outputs))
        c.expect("b", (outputs,))

    return check


def fc_weight_grad(c: Call) -> None:
    """Weights of samples, and fw, bw for every feature of x and gy."""
    fc("x", "gw", "gy")(c)
    outputs, inputs = c.any_shape("gw", 2)
    weighted(c, fw=inputs, bw=outputs)


def fc_weight_grad_sparse(c: Call) -> None:
    """The features kept of x, at most all of them, and their numbers; vectors only."""
    (outputs, inputs), kept = c.any_shape("gw", 2), c.shape("kept", 2, 2)
    c.expect("kept", (BATCH_AXIS, min(kept[1], inputs)))
    c.expect("index", kept)
    c.expect("gy", (BATCH_AXIS, outputs))
    weighted(c, bw=outputs)


def group_norm(x: str) -> Check:
    """All maps like x; scale and bias (C,), inv_std (N, groups)."""

    def check(c: Call) -> None:
        source, groups = c.shape(x, 2), c.integer("groups", 1)
        if source[1] % groups:
            c.fail(f"attribute 'groups' is {groups}, expected a divisor of {source[1]} channels")
        _norm(c, source, source[1:2], (BATCH_AXIS, groups))

    return check


def layer_norm(x: str) -> Check:
    """All values like x; scale and bias of its `dims` last axes, inv_std of the others."""

    def check(c: Call) -> None:
        source = c.shape(x, 2)
        split = len(source) - c.integer("dims", 1, len(source) - 1)
        _norm(c, source, source[split:], source[:split])

    return check


def _norm(c: Call, values: Shape, parameters: Shape, inv_std: Shape) -> None:
    for name in ("y", "x_hat", "gy", "gx"):
        c.expect(name, values)
    for name in ("scale", "bias"):
        c.expect(name, parameters)
    c.expect("inv_std", inv_std)
    if c.op.kind in ("GroupNorm", "LayerNorm"):
        c.number("eps")
        if not (c.has("y") or c.has("x_hat")):
            c.fail("neither y nor x_hat among the outputs, expected one of them")


def _check_parameter(c: Call, name: str, values: Shape) -> Shape:
    """Refuse what is not one number a channel (axis 1) or of the last axes, one number included (axis -1)."""
    shape = c.any_shape(name)
    if c.choice("axis", 1, -1) == 1:
        c.expect(name, values[1:2])
    else:
        _check_last_axes(c, name, values)
    return shape


def _check_last_axes(c: Call, name: str, values: Shape) -> None:
    shape = c.any_shape(name)
    long = next((shape[place:] for place, axis in enumerate(shape) if axis != 1), ())
    if len(shape) > len(values) or (long and values[1:][-len(long) :] != long):
        c.expect(name, values[1:])


def affine(c: Call) -> None:
    """Scale and bias of one shape."""
    source = c.shape(c.names[0], 2)
    c.expect("y", source)
    c.expect("gx", source)
    found = [_check_parameter(c, name, source) for name in ("scale", "bias") if c.has(name)]
    if len(found) == 2:
        c.expect("bias", found[0])
    c.choice("axis", 1, -1)


def affine_grad(result: str) -> Check:
    """The gradient of a scale (gy and x are given) or of a shift (gy); fw, bw for every channel."""

    def check(c: Call) -> None:
        source = c.shape("gy", 2)
        c.expect("x", source)
        count = prod(_check_parameter(c, result, source))
        weighted(c, fw=count, bw=count)

    return check


def scale_grad_sparse(c: Call) -> None:
    """The channels kept of x, at most all of them, and their numbers."""
    gy = c.shape("gy", 2)
    slots = c.shape("kept", 2)[1]
    c.expect("kept", (BATCH_AXIS, min(slots, gy[1]), *gy[2:]))
    c.expect("index", (BATCH_AXIS, slots))
    c.expect("gs", gy[1:2])
    weighted(c, bw=gy[1])


def expand(c: Call) -> None:
    """A parameter of the last axes of y."""
    _check_last_axes(c, "p", c.shape("y", 2))


def prelu(slope: str) -> Check:
    """Values of one shape; a slope a channel (axis 1) or one for all."""

    def check(c: Call) -> None:
        values = c.shape("x", 2)
        for name in ("y", "gy", "gx"):
            c.expect(name, values)
        c.expect(slope, values[1:2], (1,))
        weighted(c)

    return check


def mahalanobis(c: Call) -> None:
    """Vectors x (N, D), means (C, D), factors (C, D, D), y (N, C)."""
    width, (classes, _) = c.shape("x", 2, 2)[1], c.any_shape("means", 2)
    c.expect("means", (classes, width))
    c.expect("factors", (classes, width, width))
    c.expect("y", (BATCH_AXIS, classes))


def sgd_update(c: Call) -> None:
    """Alpha (steps, layers)."""
    w = c.any_shape("w")
    if BATCH_AXIS in w:
        c.fail(f"w {c.op.inputs[0]!r} has a batch axis, expected a parameter")
    c.expect("gw", w)
    c.expect("w'", w)
    c.integer("layer_index", 0, c.any_shape("alpha", 2)[1] - 1)
