"""The bundle's self-test: does this engine, on this machine, compute what PyTorch computed in float64?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import BundleFiles, TensorFile
from .by_stream import stream_engine
from .engines import Engine, Hooks
from .errors import BundleError
from .inputs import SupportSet
from .lower.choice import ACCUMULATE
from .lower.table import Step
from .plan import search_plan
from .plan.space import Fixed
from .planning import Request, make_plan, target_of
from .program import Tensor
from .stream.selftest import recorded_entries, recorded_norm, written

LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
STREAM_TOLERANCE = 1e-3
NORM_FLOOR = 1e-4
Array = NDArray[Any]


@dataclass(frozen=True)
class Check:
    """One compared number: `error` and `tolerance` are relative to `scale`."""

    name: str
    expected: float
    got: float
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; a NaN is not."""
        return self.error <= self.tolerance


def verify(files: BundleFiles, engine: Engine) -> dict[str, Any]:
    """Recompute the self-test's loss and gradients, or adapt to it by forward passes, in float32 and compare.

    Tolerances: the loss 1e-4 (relative above 1, absolute below); a gradient's norm and its recorded entries
    1e-3 of that norm, or of 1e-4 times the largest norm where the gradient itself is next to nothing. A bundle that
    adapts by forward passes: the norms of what it writes and of the logits, 1e-3 of that norm, and recorded entries,
    1e-3 of the largest of them.

    Returns:
        `passed`, the engine, and one object per compared number.

    Raises:
        BundleError: the bundle has no self-test, or one that does not fit the program.
    """
    support, test = selftest_support(files), _selftest(files)
    if files.streams is None:
        test.require("loss", (1,), "float32")
        mask = test.copy("alpha_mask")
        if mask.shape != (len(files.program.layers),):
            raise BundleError(
                f"{test.path}: alpha_mask {list(mask.shape)} does not fit the layers; export again"
            )
        loss, gradients = _first_gradient(files, engine, support, mask)
        checks = [_loss_check(float(test.copy("loss")[0]), loss), *_gradient_checks(test, gradients)]
    else:
        checks = list(_stream_checks(files, engine, support, test))
    return {
        "passed": all(check.passed for check in checks),
        "engine": engine.name,
        "bundle": {"name": files.manifest.name, "sha256": files.identity},
        "samples": len(support),
        "checks": [{**asdict(check), "passed": check.passed} for check in checks],
    }


def _selftest(files: BundleFiles) -> TensorFile:
    return TensorFile.open(files.file("selftest.safetensors"))


def selftest_support(files: BundleFiles, samples: int | None = None) -> SupportSet:
    """Return the samples of the bundle's self-test.

    Args:
        files: the bundle.
        samples: how many, the self-test's over and over; None: once each.

    Raises:
        BundleError: the bundle has no self-test, or one that does not fit the program.
    """
    support = _support(files, _selftest(files))
    if samples is None:
        return support
    chosen = np.arange(samples) % len(support)
    given = {part: array[chosen] for part, array in support.given.items()}
    return replace(support, images=support.images[chosen], given=given)


def _support(files: BundleFiles, test: TensorFile) -> SupportSet:
    spec, inputs = files.manifest.input, files.program.inputs
    images = test.copy("images")
    given = {part: test.copy(part) for part in files.loss.parts}
    expected = {part: files.program.tensors[inputs[part]] for part in given if part in inputs}
    fitting = [
        (given[part].dtype, given[part].shape) == _stored(tensor, images.shape[0] if images.ndim else 0)
        for part, tensor in expected.items()
    ]
    stored = (spec.stored_dtype, spec.stored_shape)
    if not images.size or (images.dtype, images.shape[1:]) != stored or not all(fitting):
        found = ", ".join(
            f"{name} {a.dtype} {list(a.shape)}" for name, a in {"images": images, **given}.items()
        )
        raise BundleError(f"{test.path}: {found} do not fit the input; export the bundle again")
    classes = _classes(files, test, given["labels"], len(images)) if files.loss.classifies else 0
    names = tuple(str(index) for index in range(classes))
    return SupportSet(images, given, names, spec)


def _classes(files: BundleFiles, test: TensorFile, labels: Array, samples: int) -> int:
    """Return how many classes the self-test uses: of a stream those that have samples, else all."""
    room, used = files.manifest.classes, np.unique(labels)
    fits = labels.dtype == np.int64 and labels.shape == (samples,) and used[0] >= 0 and used[-1] < room
    if files.streams is not None:
        fits, room = fits and len(used) == used[-1] + 1, len(used)
    if not fits:
        raise BundleError(
            f"{test.path}: labels {labels.dtype} {list(labels.shape)}, expected int64 [{samples}] from 0 to at most"
            f" {files.manifest.classes - 1}{'' if files.streams is None else ', every class'}; export the bundle again"
        )
    return room


def _stored(tensor: Tensor, samples: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    return np.dtype(tensor.dtype), tensor.concrete(samples)


def _first_gradient(
    files: BundleFiles, engine: Engine, support: SupportSet, mask: Array
) -> tuple[float, dict[str, Array]]:
    """Run one gradient step of all layers in `mask` and return the mean loss and `grad::P` by P."""
    gradients: dict[str, Array] = {}
    names = {
        grad: param
        for layer in files.program.layers
        for param, grad in zip(layer.params, layer.grads, strict=True)
    }

    def watch(gradient_step: int, first: int, step: Step, outputs: Sequence[Array | None]) -> None:
        for name, value in zip(step.outputs, outputs, strict=True):
            if name in names and value is not None:
                gradients[names[name]] = value.copy()

    alpha = mask.astype(np.float32).reshape(1, -1)
    fixed = Fixed(schedule=ACCUMULATE, saved_bits=32)
    plan = search_plan(files.program, alpha, len(support), 1, fixed=fixed, target=target_of(engine))
    result = engine.adapt(files.program, plan, files.weights, support, 0, Hooks(watch=watch))
    return result.losses[0], gradients


def _stream_checks(
    files: BundleFiles, engine: Engine, support: SupportSet, test: TensorFile
) -> Iterator[Check]:
    """Adapt by forward passes, and compare what is written and the logits."""
    runner = stream_engine(files, engine)
    plan = make_plan(files, Request(None, None, len(support), 1), runner.target)
    for name, expected, got, scale in written(files, runner, plan, support, test):
        yield _worst(name, expected, got, max(scale, np.finfo(np.float32).tiny), STREAM_TOLERANCE)


def _loss_check(expected: float, got: float) -> Check:
    return Check("loss", expected, got, abs(got - expected) / max(1.0, abs(expected)), LOSS_TOLERANCE)


def _gradient_checks(test: TensorFile, gradients: dict[str, Array]) -> Iterator[Check]:
    """Compare norm and entries of every gradient that the self-test lists."""
    listed = [name.removeprefix("norm::") for name in test.entries if name.startswith("norm::")]
    if not listed:
        raise BundleError(f"{test.path}: names no gradient to compare; export the bundle again")
    norms = {name: recorded_norm(test, name) for name in listed}
    for name, norm in norms.items():
        if name not in gradients:
            raise BundleError(
                f"{test.path}: gradient of {name!r} is not computed by the program; export again"
            )
        scale = max(norm, NORM_FLOOR * max(norms.values()), np.finfo(np.float32).tiny)
        got = float(np.linalg.norm(gradients[name].astype(np.float64)))
        yield Check(f"norm of {name}", norm, got, abs(got - norm) / scale, GRADIENT_TOLERANCE)
        yield _entries_check(name, recorded_entries(test, name), gradients[name].reshape(-1), scale)


def _entries_check(name: str, expected: Array, gradient: Array, scale: float) -> Check:
    """Compare the entries at flat indices floor(i * size / count); report the worst one."""
    indices = np.arange(len(expected)) * len(gradient) // len(expected)
    return _worst(f"entries of {name}", expected, gradient[indices], scale, GRADIENT_TOLERANCE)


def _worst(name: str, expected: Array, got: Array, scale: float, tolerance: float) -> Check:
    worst = int(np.argmax(np.nan_to_num(np.abs(got - expected), nan=np.inf)))
    error = float(abs(got[worst] - expected[worst])) / scale
    return Check(name, float(expected[worst]), float(got[worst]), error, tolerance)
