"""The losses a bundle may adapt with: what they need beside the samples, and their value in float64.

A loss's meaning on the device, with its gradient, is an operation of the program (`edge/reference/loss.py`).
Here is what surrounds it: which arrays a support set brings, what the model's outputs mean to a person, and
the plain mean loss that a report gives (without the label smoothing that a program may have).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, EdgeAdaptError
from .inputs import Answers, ClassLabels, Target, Targets
from .program import Op, Program, Tensor

Array: TypeAlias = NDArray[Any]
Outputs: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """A loss by the name that manifests give it.

    Attributes:
        name: in the manifest.
        operation: of the program.
        parts: the program's inputs that every sample brings, besides itself.
        answers: what a support set must hold, for a program with this loss.
        mean: mean loss over the samples, from float64 outputs (n, ...), the parts and the learned tensors.
        learned: names, for `mean`, of the learned tensors that the operation reads itself, in its order.
        classifies: whether outputs are scores of classes; if so, the program has a `class_mask`.
    """

    name: str
    operation: str
    parts: tuple[str, ...]
    answers: Callable[[Program], Answers]
    mean: Callable[[Outputs, Mapping[str, Array]], float]
    learned: tuple[str, ...] = ()
    classifies: bool = False

    def check(self, program: Program, where: str) -> None:
        """Raise BundleError unless the program has this loss and its inputs."""
        expected = {"images", "sample_weight", *self.parts, *(("class_mask",) if self.classifies else ())}
        kind = loss_operation(program).kind
        if kind != self.operation or not expected <= set(program.inputs):
            raise BundleError(
                f"{where}: loss {self.name} needs {self.operation} with inputs {sorted(expected)}, but"
                f" program.json has {kind} with {sorted(program.inputs)}; export the bundle again"
            )

    def learned_tensors(self, program: Program) -> dict[str, str]:
        """Return the program's tensor for every name in `learned`."""
        if not self.learned:
            return {}
        read = loss_operation(program).inputs
        tensors = (name for name in read if name and program.tensors[name].role == "param")
        return dict(zip(self.learned, tensors, strict=True))


def loss_operation(program: Program) -> Op:
    """Return the operation that writes the loss; raises BundleError where there is none."""
    loss = program.outputs.get("loss", "")
    found = [op for op in program.ops(("loss",)) if loss and loss in op.outputs]
    if not found:
        raise BundleError("program.json: nothing writes the loss; export the bundle again")
    return found[0]


def answer_tensors(program: Program) -> dict[str, Tensor]:
    """Return by input part what the loss reads of every sample: labels, targets, actions and advantages."""
    read = {name for op in program.ops(("loss",)) for name in op.inputs}
    parts = {part: program.tensors[name] for part, name in program.inputs.items() if name in read}
    return {p: t for p, t in parts.items() if t.batched and p not in ("images", "sample_weight")}


def finite(outputs: NDArray[np.float32]) -> Outputs:
    """Return outputs (n, ...) in float64; raises EdgeAdaptError naming the first sample that is not finite."""
    values = outputs.astype(np.float64)
    good = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not good.all():
        raise EdgeAdaptError(
            f"sample {int(np.argmin(good))}: output is not finite; adapt again (gradient steps: fewer of them)"
        )
    return values


def log_softmax(scores: Outputs) -> Outputs:
    """Return the logarithm of the softmax over the last axis."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _output_shape(program: Program) -> tuple[int, ...]:
    return program.tensors[program.outputs["logits"]].concrete(1)[1:]


def _labels(program: Program) -> Answers:
    return ClassLabels(_output_shape(program)[-1])


def _cross_entropy(outputs: Outputs, given: Mapping[str, Array]) -> float:
    """Mean of -log softmax(outputs)[label]; only the columns of the classes in use are given."""
    of_label = np.take_along_axis(log_softmax(outputs), given["labels"][:, None], axis=1)
    return float(-of_label.mean())


def _regression_targets(program: Program) -> Answers:
    return Targets((Target("targets", _output_shape(program)),))


def _squared_error(outputs: Outputs, given: Mapping[str, Array]) -> float:
    """Mean over samples and elements of (output - target)^2."""
    return float(np.square(outputs - given["targets"]).mean())


def _discrete_actions(program: Program) -> Answers:
    *each, actions = _output_shape(program)
    return Targets((Target("actions", tuple(each), below=actions), Target("advantages", tuple(each))))


def _categorical(outputs: Outputs, given: Mapping[str, Array]) -> float:
    """Mean over samples and time of -advantage * log softmax(outputs)[action]."""
    chosen = np.take_along_axis(log_softmax(outputs), given["actions"][..., None], axis=-1)[..., 0]
    return float(-(given["advantages"] * chosen).mean())


def _continuous_actions(program: Program) -> Answers:
    shape = _output_shape(program)
    return Targets((Target("actions", shape), Target("advantages", shape[:-1])))


def _gaussian(outputs: Outputs, given: Mapping[str, Array]) -> float:
    """Mean over samples and time of -advantage * log N(action; output, exp(log_std)^2), actions independent."""
    log_std = given["log_std"].astype(np.float64)
    distance = (given["actions"] - outputs) / np.exp(log_std)
    density = -0.5 * np.square(distance) - log_std - 0.5 * math.log(2 * math.pi)
    return float(-(given["advantages"] * density.sum(axis=-1)).mean())


LOSSES: Mapping[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss(
            "softmax-cross-entropy",
            "SoftmaxCrossEntropy",
            ("labels",),
            _labels,
            _cross_entropy,
            classifies=True,
        ),
        Loss("mean-squared-error", "MeanSquaredError", ("targets",), _regression_targets, _squared_error),
        Loss(
            "categorical-policy-gradient",
            "CategoricalPolicyGradient",
            ("actions", "advantages"),
            _discrete_actions,
            _categorical,
        ),
        Loss(
            "gaussian-policy-gradient",
            "GaussianPolicyGradient",
            ("actions", "advantages"),
            _continuous_actions,
            _gaussian,
            learned=("log_std",),
        ),
    )
}
