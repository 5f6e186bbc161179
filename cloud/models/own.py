"""A backbone of the user's own, named by its import path, "package.module:Name"."""

from __future__ import annotations

import copy
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from .options import checked_options
from .parts import Shape

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
SAMPLES = 3


@dataclass(frozen=True)
class OwnBackbone:
    """What an import path names.

    Attributes:
        path: the import path.
        build: called with (sample_shape, outputs) and its own options by name.
        root: the directory that it was imported from; None where Python finds it anyway.
    """

    path: str
    build: Callable[..., nn.Module]
    root: str | None


def is_import_path(name: str) -> bool:
    """Whether a backbone's name has the form of an import path."""
    return _PATH.fullmatch(name) is not None


def import_backbone(path: str, root: str | None = None) -> OwnBackbone:
    """Import a backbone. This runs the module's code: load runs of people you trust only.

    Args:
        path: "package.module:Name", a class or function.
        root: directory to look in first; where it is None or does not exist any more, the working directory.

    Raises:
        ValueError: no such module or name, it fails on import, or another module of that name is loaded already.
    """
    module_name, _, name = path.partition(":")
    folder = Path(root) if root is not None and Path(root).is_dir() else Path.cwd()
    try:
        with _importable(folder):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error}; it is looked for in {folder} and where Python looks: run from the directory that holds "
            "it, or set backbone_root"
        ) from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing {module_name} fails: {_one_line(error)}") from None
    found = _root(module_name, getattr(module, "__file__", None), folder)
    build = getattr(module, name, None)
    if not callable(build):
        public = sorted(key for key, value in vars(module).items() if callable(value) and key[0] != "_")
        raise ValueError(
            f"{module_name} has no class or function {name!r}; it has {', '.join(public) or 'none'}"
        )
    return OwnBackbone(path, build, found)


def build_own(
    own: OwnBackbone, sample_shape: Shape, outputs: int, seed: int, options: Mapping[str, object]
) -> nn.Module:
    """A freshly initialised module, tried on random samples; the same seed gives the same weights.

    Args:
        own: what to build.
        sample_shape: of one sample, without the batch.
        outputs: classes, or values to regress on.
        seed: of the initial weights.
        options: its own, by name.

    Raises:
        ValueError: it has no such option, cannot be built or run, returns another shape, or what it returns for
            a sample is random or depends on the other samples, or its forward pass depends on data, or a parameter
            of it is empty.
    """
    chosen = checked_options(own.path, own.build, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = own.build(sample_shape, outputs, **chosen)
        except (Exception, SystemExit) as error:
            raise ValueError(f"building it for samples {sample_shape} fails: {_one_line(error)}") from None
    if not isinstance(module, nn.Module):
        raise ValueError(f"expected a torch module, got {type(module).__name__}")
    for name, value in module.named_parameters():
        if value.numel() == 0:
            raise ValueError(f"parameter {name} has shape {tuple(value.shape)}, without a number to learn")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _try(copy.deepcopy(module), sample_shape, outputs)
    return module


@torch.enable_grad()
def check_gradient(module: nn.Module, sample_shape: Shape) -> None:
    """Try the backward pass, on random samples and a copy.

    Raises:
        ValueError: no gradient of the output reaches a parameter, which is named.
    """
    trial = copy.deepcopy(module).requires_grad_()
    x = torch.randn(SAMPLES, *sample_shape, generator=torch.Generator().manual_seed(0))
    y = trial(x)
    names = [name for name, _ in trial.named_parameters()]
    found = (
        torch.autograd.grad(y.sum(), list(trial.parameters()), allow_unused=True) if y.requires_grad else ()
    )
    for name, gradient in zip_longest(names, found):
        if gradient is None:
            raise ValueError(
                f"no gradient reaches parameter {name}; remove the detach, no_grad or .data that cuts it off"
            )


@torch.no_grad()
def _try(module: nn.Module, sample_shape: Shape, outputs: int) -> None:
    """Refuse a module that cannot be traced, or outputs of another shape, not finite, random, or of mixed samples."""
    x = torch.randn(SAMPLES, *sample_shape)
    try:
        first, again = module(x), module(x)
        module.eval()
        together, alone = module(x), torch.cat([module(x[n : n + 1]) for n in range(SAMPLES)])
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"running it on samples {(SAMPLES, *sample_shape)} fails: {_one_line(error)}"
        ) from None
    try:
        traced = fx.symbolic_trace(module)(x)
    except Exception as error:
        raise ValueError(f"torch.fx cannot trace it: {_one_line(error)}") from None
    if not isinstance(first, Tensor) or first.shape != (SAMPLES, outputs):
        found = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"of {SAMPLES} samples it returns {found}, expected {(SAMPLES, outputs)}")
    if not bool(first.isfinite().all()):
        raise ValueError("what it returns is not finite (NaN or infinite)")
    if not torch.equal(first, again):
        raise ValueError("the same samples give other values a second time; remove dropout and other noise")
    scale = float(together.abs().max())
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-4 * scale):
        raise ValueError("a sample's values depend on the other samples of its batch; keep samples apart")
    if not torch.allclose(together, traced, rtol=1e-3, atol=1e-4 * scale):
        raise ValueError("torch.fx traces other values than it computes; use y = y + x for y += x")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let Python find modules of a directory, before all others."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _root(module_name: str, file: str | None, folder: Path) -> str | None:
    """The directory, where the module lies in it.

    Raises:
        ValueError: it holds such a module, but Python had loaded one of the same name from elsewhere.
    """
    inside = file is not None and Path(file).resolve().is_relative_to(folder.resolve())
    top = folder / module_name.partition(".")[0]
    if not inside and (top.is_dir() or top.with_suffix(".py").is_file()):
        raise ValueError(
            f"{folder} has a module {module_name}, but another one is loaded, {file}; rename yours"
        )
    return str(folder.resolve()) if inside else None


def _one_line(error: BaseException) -> str:
    lines: list[Any] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
