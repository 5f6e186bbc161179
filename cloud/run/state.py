"""Where training stands after an outer step, and the checkpoint file that holds it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..files import replacing
from ..outer import Meta
from .adam import AdamState

FORMAT = 2


@dataclass(frozen=True)
class Best:
    """The meta-parameters that are kept: best validation metric among the states the method accepts."""

    step: int
    score: float
    meta: Meta


@dataclass(frozen=True)
class State:
    """Everything the next outer step depends on; a value, so an interrupt between steps loses nothing.

    Attributes:
        step: outer steps done.
        meta: meta-parameters after them.
        adam: the optimizer's state.
        best: None until a state the method accepts was validated.
        history: one row of `metrics.csv` per validation.
        pending: metrics of the steps since the last validation.
        seconds: time spent so far, over all resumptions.
    """

    step: int
    meta: Meta
    adam: AdamState
    best: Best | None = None
    history: tuple[dict[str, float], ...] = ()
    pending: tuple[dict[str, float], ...] = ()
    seconds: float = 0.0

    def to(self, device: str) -> State:
        """The same state, its tensors elsewhere."""
        best = None if self.best is None else replace(self.best, meta=self.best.meta.to(device))
        return replace(self, meta=self.meta.to(device), adam=self.adam.to(device), best=best)


def save_checkpoint(path: Path, state: State, config: Mapping[str, Any]) -> None:
    """Write a checkpoint that `load_checkpoint` reads; it replaces an old one when complete."""
    write_checkpoint(path, {"format": FORMAT, "config": dict(config), "state": _stored(state)})


def load_checkpoint(path: Path) -> tuple[State, dict[str, Any]]:
    """Read a checkpoint back: the state and the configuration's table.

    Raises:
        ConfigError: the file is missing, damaged or of another format.
    """
    content = read_checkpoint(path, FORMAT)
    with readable(path):
        return _restore(content["state"]), content["config"]


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values and tensors that `torch.load(weights_only=True)` reads, complete or not at all.

    Raises:
        CannotWrite: no space, no right to write.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:  # what torch makes of an error of the file
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def read_checkpoint(path: Path, number: int) -> dict[str, Any]:
    """What `write_checkpoint` wrote, tensors on the CPU; `number` is the expected content of "format".

    Raises:
        ConfigError: the file is missing, damaged or of another format.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: there is nothing to resume; leave --resume away")
    with readable(path):
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        found = content["format"]
    if found != number:
        raise ConfigError(f"{path} has checkpoint format {found}, this version reads {number}; start again")
    return content


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Refuse a checkpoint that cannot be read, in one line; raises ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        raise ConfigError(
            f"{path} is no checkpoint or is damaged ({type(error).__name__}); start again"
        ) from None


def _stored(state: State) -> dict[str, Any]:
    """Plain values that share the state's tensors."""
    best = state.best
    return {
        **vars(state),
        "meta": vars(state.meta),
        "adam": vars(state.adam),
        "best": None if best is None else {**vars(best), "meta": vars(best.meta)},
    }


def _restore(stored: Mapping[str, Any]) -> State:
    best = stored["best"]
    return State(
        step=stored["step"],
        meta=_meta(stored["meta"]),
        adam=AdamState(**stored["adam"]),
        best=None if best is None else Best(best["step"], best["score"], _meta(best["meta"])),
        history=tuple(stored["history"]),
        pending=tuple(stored["pending"]),
        seconds=stored["seconds"],
    )


def _meta(stored: Mapping[str, dict[str, Tensor]]) -> Meta:
    return Meta(stored["learned"], stored["fixed"])
