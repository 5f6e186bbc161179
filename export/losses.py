"""The losses a bundle can adapt with: the program's inputs that each brings, and its operation.

What a support set holds for each of them is in `edge/losses.py`, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from ..edge.program import BATCH, Attr, Layer, Op, Program, Tensor
from .errors import ExportError
from .network import Network, Origin
from .tape import SAMPLE_WEIGHT

Shape = tuple[int, ...]
DEFAULT, LOG_STD = "softmax-cross-entropy", "log-std"


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs.

    Attributes:
        name: in the manifest and in `export_bundle`.
        kind: the operation.
        inputs: shape of one sample's output -> the program's inputs it reads, in the operation's order.
        expects: the shapes of outputs that it takes, for people.
        ranks: how many axes one sample's output may have; empty: any number.
        learned: kind of a layer whose parameters it reads itself, after the outputs; "" for none.
        of_logits: whether it takes the softmax of the outputs itself.
        attrs: of the operation.
    """

    name: str
    kind: str
    inputs: Callable[[Shape], tuple[Tensor, ...]]
    expects: str
    ranks: tuple[int, ...] = ()
    learned: str = ""
    of_logits: bool = False
    attrs: Mapping[str, Attr] = field(default_factory=dict)

    def check(self, output_shape: Shape) -> None:
        """Raise ExportError unless the module's output (without the batch) is what this loss takes."""
        if self.ranks and len(output_shape) not in self.ranks:
            raise ExportError(
                f"the module's output has shape {output_shape}; expected {self.expects} for loss {self.name}"
            )

    def forward_layers(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those layers that are in the forward section: all but the one that the loss reads itself."""
        return tuple(name for name in names if not (self.learned and _is_log_std(name)))

    def operation(self, forward: Program) -> tuple[Op, tuple[Tensor, ...]]:
        """The operation at the end of a forward section, and every new tensor it reads or writes.

        Raises:
            ExportError: the outputs do not fit, are probabilities instead of logits, or the learned tensor is
                missing.
        """
        outputs = forward.tensors[forward.outputs["logits"]]
        shape = tuple(int(axis) for axis in outputs.shape[1:])
        self.check(shape)
        last = next((op for op in forward.ops() if outputs.name in op.outputs), None)
        if self.of_logits and last is not None and last.kind == "Softmax":
            raise ExportError(
                f"the module ends with the Softmax {last.layer!r}, but loss {self.name} takes the softmax itself; "
                "return the logits"
            )
        learned = tuple(
            name for layer in forward.layers if layer.kind == self.learned for name in layer.params
        )
        if self.learned and len(learned) != 1:
            raise ExportError(
                f"loss {self.name}: expected one layer of kind {self.learned}, got {len(learned)}"
            )
        given, gradient = self.inputs(shape), Tensor(f"d::{outputs.name}", outputs.shape)
        names = (outputs.name, *learned, *(tensor.name for tensor in given))
        op = Op(self.kind, names, ("loss", gradient.name), "loss", dict(self.attrs))
        return op, (*given, Tensor("loss", ()), gradient)


def loss_named(name: str, label_smoothing: float = 0.0) -> Loss:
    """The loss of that name; raises ExportError for an unknown one, or smoothing where there are no labels."""
    if name not in LOSSES:
        raise ExportError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}")
    if label_smoothing and name != DEFAULT:
        raise ExportError(f"label_smoothing: only for {DEFAULT}, but the loss is {name}")
    loss = LOSSES[name]
    return replace(loss, attrs={"label_smoothing": label_smoothing}) if name == DEFAULT else loss


def with_learned(
    loss: Loss, network: Network, module: nn.Module | None, layer_names: tuple[str, ...]
) -> Network:
    """Add the layer that the loss itself reads (log_std of a Gaussian policy), where it has one.

    Args:
        loss: what the network is trained with.
        network: as captured.
        module: where the parameter `log_std` is, at any depth.
        layer_names: columns of the step-size table; empty: the order of execution, log_std last.

    Raises:
        ExportError: the module has no such parameter, or of another shape than one number per action.
    """
    if not loss.learned or any(layer.kind == loss.learned for layer in network.program.layers):
        return network
    params = {} if module is None else dict(module.named_parameters())
    found = [name for name in params if _is_log_std(name)]
    actions = network.output_shape[-1:]
    if len(found) != 1 or tuple(params[found[0]].shape) != actions:
        raise ExportError(
            f"loss {loss.name} needs one parameter log_std of shape {actions} in a torch module, "
            f"got {', '.join(f'{name} {tuple(params[name].shape)}' for name in found) or 'none'}"
        )
    (name,), program = found, network.program
    layer = Layer(name, loss.learned, (name,), (f"grad::{name}",), len(program.layers))
    layers = (*program.layers, layer)
    if layer_names:
        layers = tuple(replace(layer, index=layer_names.index(layer.name)) for layer in layers)
    value = np.ascontiguousarray(params[name].detach().cpu().numpy(), np.float32)
    tensors = {**program.tensors, name: Tensor(name, value.shape, role="param")}
    grown = replace(program, tensors=tensors, layers=layers)
    values, origins = {**network.values, name: value}, {**network.origins, name: Origin(name)}
    return replace(network, program=grown, values=values, origins=origins)


def _is_log_std(name: str) -> bool:
    return name.rpartition(".")[2] == "log_std"


def _weighted(*tensors: Tensor) -> tuple[Tensor, ...]:
    return (*tensors, Tensor(SAMPLE_WEIGHT, (BATCH,), role="input"))


def _given(name: str, shape: Shape, dtype: str = "float32") -> Tensor:
    return Tensor(name, (BATCH, *shape), dtype, "input")


def _labels(shape: Shape) -> tuple[Tensor, ...]:
    return *_weighted(_given("labels", (), "int64")), Tensor("class_mask", shape, role="input")


def _targets(shape: Shape) -> tuple[Tensor, ...]:
    return _weighted(_given("targets", shape))


def _discrete_actions(shape: Shape) -> tuple[Tensor, ...]:
    return _weighted(_given("actions", shape[:-1], "int64"), _given("advantages", shape[:-1]))


def _continuous_actions(shape: Shape) -> tuple[Tensor, ...]:
    return _weighted(_given("actions", shape), _given("advantages", shape[:-1]))


_POLICY = "(N, actions) or (N, time, actions)"
LOSSES: Mapping[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss(
            DEFAULT,
            "SoftmaxCrossEntropy",
            _labels,
            "logits (N, classes)",
            (1,),
            of_logits=True,
            attrs={"label_smoothing": 0.0},
        ),
        Loss("mean-squared-error", "MeanSquaredError", _targets, "(N, ...)"),
        Loss(
            "categorical-policy-gradient",
            "CategoricalPolicyGradient",
            _discrete_actions,
            f"logits {_POLICY}",
            (1, 2),
            of_logits=True,
        ),
        Loss(
            "gaussian-policy-gradient",
            "GaussianPolicyGradient",
            _continuous_actions,
            f"means {_POLICY}",
            (1, 2),
            LOG_STD,
        ),
    )
}
