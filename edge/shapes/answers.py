"""Rules of losses, of attention, and of what only lowering writes."""

from __future__ import annotations

from .call import BATCH_AXIS, Call, Shape
from .layers import SAMPLES


def _loss(c: Call, outputs: str, least: int = 1, most: int | None = None) -> Shape:
    """The loss is one number, the gradient like the outputs of the network."""
    shape = c.shape(outputs, least, *([most] if most else []))
    c.expect("loss", (), (1,))
    c.expect("gradient", shape)
    c.expect("sample_weight", SAMPLES)
    return shape


def cross_entropy(c: Call) -> None:
    """Logits (N, C), labels (N,), class_mask (C,)."""
    logits = _loss(c, "logits", 2, 2)
    c.expect("labels", SAMPLES)
    c.expect("class_mask", logits[1:])
    if "label_smoothing" in c.op.attrs:
        c.number("label_smoothing")


def squared_error(c: Call) -> None:
    """Targets like the outputs."""
    c.expect("targets", _loss(c, "outputs"))


def categorical(c: Call) -> None:
    """Logits (N, A) or (N, T, A), actions and advantages (N,) or (N, T)."""
    logits = _loss(c, "logits", 2)
    c.expect("actions", logits[:-1])
    c.expect("advantages", logits[:-1])


def gaussian(c: Call) -> None:
    """Mean and actions (N, A) or (N, T, A), log_std (A,), advantages (N,) or (N, T)."""
    mean = _loss(c, "mean", 2)
    c.expect("log_std", mean[-1:])
    c.expect("actions", mean)
    c.expect("advantages", mean[:-1])
    c.expect("gs", mean[-1:])


def attention(c: Call) -> None:
    """w1 (hidden, C), b1 (hidden,), w2 (C, hidden), b2 (C,), keep and gamma (N, C)."""
    channels = c.shape("x", 2)[int(str(c.choice("axis", 1, -1)))]
    hidden = c.any_shape("w1", 2)[0]
    c.expect("w1", (hidden, channels))
    c.expect("b1", (hidden,))
    c.expect("w2", (channels, hidden))
    c.expect("b2", (channels,))
    c.expect("keep", (BATCH_AXIS, channels))
    c.expect("gamma", (BATCH_AXIS, channels))
    c.number("rho")
    c.choice("normalize", "none", "rms")
    if c.op.attrs.get("cap") is not None:
        c.integer("cap", 1)


def select_channels(c: Call) -> None:
    """At most all channels of x are kept, and their numbers."""
    x = c.shape("x", 2)
    slots = c.shape("kept", 2)[1]
    c.expect("gamma", x[:2])
    c.expect("kept", (BATCH_AXIS, min(slots, x[1]), *x[2:]))
    c.expect("index", (BATCH_AXIS, slots))


def quantise(c: Call) -> None:
    """A level for every element, two numbers for every channel."""
    x = c.shape("x", 2)
    c.expect_dtype("levels", "uint8", "uint16")
    c.expect("levels", x)
    c.expect("range", (*x[:2], 2))


def anything(c: Call) -> None:
    """Nothing to check but number and types."""
