"""Weights that meta-training starts from, instead of random ones: a file from earlier, ordinary training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from .errors import ConfigError
from .outer import Meta


def with_weights(meta: Meta, path: Path) -> Meta:
    """Put the tensors of a safetensors file in place of the weights of the same names; others stay random.

    Raises:
        ConfigError: no such file, or a tensor in it has no place in the network or another shape or dtype.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"train.initial_weights: {path} cannot be read ({error})") from None
    for name, value in found.items():
        own = meta.learned.get(name)
        if own is None or own.shape != value.shape or own.dtype != value.dtype:
            expected = "no such weight" if own is None else f"{own.dtype} {tuple(own.shape)}"
            raise ConfigError(
                f"train.initial_weights: {path}, {name}: the network has {expected}, "
                f"got {value.dtype} {tuple(value.shape)}"
            )
    return replace(meta, learned={**meta.learned, **found})
