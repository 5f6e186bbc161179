"""Meta attention per sample (p-Meta section 3.3, Alg. 1), and the channels it keeps."""

from __future__ import annotations

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, integer, number, optional, present

RMS_FLOOR = 1e-12


def clipped(pi: Array, rho: float, cap: int | None) -> Array:
    """Return the 0/1 selection (C,) of Alg. 1: the smallest entries whose sum reaches rho are dropped.

    Ascending and stable: among equals the lower index goes first. C - cap or more are dropped, never all.
    """
    order = np.argsort(pi, kind="stable")
    dropped = int(np.searchsorted(np.cumsum(pi[order]), pi.dtype.type(rho))) + 1 if rho > 0 else 0
    if cap is not None:
        dropped = max(dropped, pi.size - cap)
    keep = np.ones_like(pi)
    keep[order[: min(dropped, pi.size - 1)]] = 0
    return keep


def _pooled(x: Array, axis: int, channels: int) -> Array:
    """Mean of one sample over everything but its channels, which are its first axis (1) or its last (-1)."""
    mean = x.reshape(channels, -1).mean(axis=1) if axis == 1 else x.reshape(-1, channels).mean(axis=0)
    return np.asarray(mean)


def _probabilities(pooled: Array, w1: Array, b1: Array, w2: Array, b2: Array, normalize: str) -> Array:
    if normalize == "rms":
        pooled = pooled / (np.sqrt(np.mean(pooled * pooled)) + pooled.dtype.type(RMS_FLOOR))
    logits = w2 @ np.maximum(w1 @ pooled + b1, 0) + b2
    exponentials = np.exp(logits - logits.max())
    return np.asarray(exponentials / exponentials.sum())


def _channel_attention(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, w1, b1, w2, b2 = present(inputs[:5])
    keep = optional(inputs, 5)
    (gamma,) = present(outputs)
    rho, axis = number(attrs, "rho"), integer(attrs, "axis")
    cap = None if attrs.get("cap") is None else integer(attrs, "cap")
    for sample in range(x.shape[0]):
        pooled = _pooled(x[sample], axis, gamma.shape[1])
        pi = _probabilities(pooled, w1, b1, w2, b2, str(attrs["normalize"]))
        kept = pi * (clipped(pi, rho, cap) if keep is None else keep[sample])
        np.multiply(kept, kept.size / kept.sum(), out=gamma[sample])


def _select_channels(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, gamma = present(inputs)
    kept, index = present(outputs)
    cap = kept.shape[1]
    for sample in range(x.shape[0]):
        channels = np.flatnonzero(gamma[sample])
        if not np.isfinite(gamma[sample]).all():  # for the finite check of the gradient to find
            channels = np.arange(cap)
        if channels.size > cap:
            raise ValueError(
                f"SelectChannels: sample {sample} keeps {channels.size} channels of at most {cap}"
            )
        for slot, channel in enumerate(channels):
            np.multiply(
                x[sample, channel], gamma[sample, channel], out=kept[sample, slot : slot + 1].squeeze(0)
            )
        kept[sample, channels.size :] = 0
        index[sample, : channels.size] = channels
        index[sample, channels.size :] = -1


KERNELS = {
    "ChannelAttention": Kernel(_channel_attention),
    "SelectChannels": Kernel(_select_channels),
}
