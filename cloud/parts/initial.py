"""Weights that meta-training starts from, instead of random ones: a file from earlier, ordinary training."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ConfigError
from ..outer import Meta
from ..run.state import load_checkpoint, readable

TORCH_SUFFIXES = (".pt", ".pth")
WEIGHT_FILES = ("weights.safetensors", "model.safetensors")
"""What a pre-training and a run keep their weights in."""
INSIDE = "extractor."
"""Before the names of the backbone's tensors in what a run of a learner keeps."""
ANEW = ("alpha", "open", "benefit")
"""Of a checkpoint, what a new run makes afresh: step sizes, and what goes with them."""


def from_checkpoint(meta: Meta, path: Path) -> Meta:
    """The weights that a meta-training kept (best validated ones, else last ones) in place of one's own.

    Args:
        meta: where training would start; its step sizes stay.
        path: `checkpoint.pt` of a run of the same method and backbone.

    Raises:
        ConfigError: it is damaged, or of another method or backbone.
    """
    state, _ = load_checkpoint(path)
    kept = (state.best or state).meta
    both = []
    for own, found in ((meta.learned, kept.learned), (meta.fixed, kept.fixed)):
        taken = {name: value for name, value in found.items() if name not in ANEW}
        for name, value in taken.items():
            _check(path, name, own.get(name), value)
        if missing := sorted(own.keys() - taken.keys() - set(ANEW)):
            raise ConfigError(
                f"train.initial_weights: {path} lacks {missing[0]} and {len(missing) - 1} more of {len(own)} tensors; "
                "it must be of a run of the same method and backbone"
            )
        both.append({**own, **taken})
    return Meta(*both)


def is_checkpoint(path: Path) -> bool:
    """Whether a file is, by its form, the checkpoint of a meta-training."""
    if path.suffix not in TORCH_SUFFIXES or not path.is_file():
        return False
    try:
        with readable(path):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ConfigError:  # whoever reads it as weights says why
        return False
    return isinstance(content, Mapping) and {"format", "config", "state"} <= content.keys()


def with_weights(meta: Meta, path: Path) -> Meta:
    """Put the tensors of a file in place of the weights of the same names; others stay random.

    Raises:
        ConfigError: no such file, or a tensor in it has no place in the network or another shape or dtype.
    """
    if is_checkpoint(path):
        return from_checkpoint(meta, path)
    found = read_weights(path)
    for name, value in found.items():
        _check(path, name, meta.learned.get(name), value)
    return replace(meta, learned={**meta.learned, **found})


def load_extractor(module: nn.Module, extractor: nn.Module, path: Path) -> None:
    """Put the tensors of a file into a backbone: weights and statistics of norms, all but its classifier's.

    Args:
        module: the backbone, changed in place.
        extractor: what is made of it without its classifier; says by names what must be in the file.
        path: safetensors, or a state dict of torch (.pt, .pth); or model.safetensors of a run of a learner.

    Raises:
        ConfigError: no such file, or it lacks a tensor, has one too many, or one of another shape or dtype.
    """
    found, own = read_weights(path), _floats(module.state_dict())
    needed = [name for name in _floats(extractor.state_dict()) if name in own]
    if all(INSIDE + name in found for name in needed):
        found = {name: found[INSIDE + name] for name in needed}
    missing = [name for name in needed if name not in found]
    if missing:
        raise ConfigError(
            f"train.initial_weights: {path} lacks {missing[0]} and {len(missing) - 1} more of {len(needed)} tensors "
            "of the backbone; the names must be the backbone's own"
        )
    classifier = own.keys() - set(needed)
    found = {name: value for name, value in found.items() if name not in classifier}
    for name, value in found.items():
        _check(path, name, own.get(name), value)
    module.load_state_dict(found, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Floating-point tensors of a file by name.

    Raises:
        ConfigError: it is missing or damaged, its form is another one, or a number in it is infinite or NaN.
    """
    if path.is_dir():
        files = [str(path / name) for name in WEIGHT_FILES if (path / name).is_file()]
        raise ConfigError(
            f"train.initial_weights: {path} is a folder; name {' or '.join(files) or 'a file of weights'}"
        )
    try:
        found = _read_torch(path) if path.suffix in TORCH_SUFFIXES else load_file(path)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ConfigError(f"train.initial_weights: {path} cannot be read ({reason})") from None
    floats = _floats(found)
    for name, value in floats.items():
        if not bool(value.isfinite().all()):
            raise ConfigError(
                f"train.initial_weights: {path}, {name} has values that are not finite; train again"
            )
    return floats


def _read_torch(path: Path) -> Mapping[str, Tensor]:
    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(
            f"train.initial_weights: {path}: expected a state dict, tensors by name (torch.save(model.state_dict(), "
            f"...)), got {type(content).__name__}"
        )
    return content


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without counters of batches, which nothing reads."""
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


def _check(path: Path, name: str, own: Tensor | None, value: Tensor) -> None:
    if own is None or own.shape != value.shape or own.dtype != value.dtype:
        expected = "no such weight" if own is None else f"{own.dtype} {tuple(own.shape)}"
        raise ConfigError(
            f"train.initial_weights: {path}, {name}: the network has {expected}, "
            f"got {value.dtype} {tuple(value.shape)}"
        )
