"""What a bundle is made from: the network, its step sizes, its meta attention, what is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..edge.inputs import InputSpec
from .capture import capture
from .errors import ExportError
from .losses import loss_named, with_learned
from .network import Network

if TYPE_CHECKING:
    from ..edge.inputs import ArraySpec

Array = NDArray[np.float32]
Side = Literal["fw", "bw"]
BW_INPUTS = ("rms", "raw")
SIDES: tuple[Side, Side] = ("fw", "bw")


@dataclass(frozen=True)
class AttentionModule:
    """Two dense layers C -> H -> C: w1 (H, C), b1 (H,), w2 (C, H), b2 (C,)."""

    w1: Array
    b1: Array
    w2: Array
    b2: Array


@dataclass(frozen=True)
class AttentionSettings:
    """How pi becomes gamma (p-Meta sec. 3.3, Alg. 1); ExportError names a field out of its range.

    Attributes:
        rho_fw: share of the attention that clipping may drop, input side; in [0, 1).
        rho_bw: the same, output side.
        cap: most channels kept by forward attention, or None.
        bw_input: "rms" normalises the pooled gradient, "raw" does not.
    """

    rho_fw: float = 0.3
    rho_bw: float = 0.0
    cap: int | None = None
    bw_input: str = "rms"

    def __post_init__(self) -> None:
        if self.bw_input not in BW_INPUTS:
            raise ExportError(f"bw_input: expected one of {', '.join(BW_INPUTS)}, got {self.bw_input!r}")
        for name in ("rho_fw", "rho_bw"):
            if not 0 <= getattr(self, name) < 1:
                raise ExportError(f"{name}: expected a share in [0, 1), got {getattr(self, name)!r}")
        if self.cap is not None and self.cap < 1:
            raise ExportError(f"cap: expected at least 1 channel, or None, got {self.cap!r}")


@dataclass(frozen=True)
class Source:
    """Everything a bundle is made from; `source_of_run` builds one from a training run.

    Attributes:
        name: of the bundle, for example "conv4-omniglot-p-meta".
        module: torch module, samples (N, ...) to outputs (N, ...); its parameters are the initial weights. None
            for a network that came from an ONNX file.
        input: shape and preprocessing of a sample.
        layer_names: module paths of all layers, in the order of alpha's columns.
        alpha: step sizes (K, L); an exact zero means: not updated in that step.
        attention: layer -> side -> module; layers and sides without attention are absent.
        settings: how attention selects channels.
        samples: support samples the model was meta-trained for.
        caps: (K, L) most channels that forward attention kept on validation tasks, or None.
        benefits: (K, L) mean of alpha * <g, gamma * g> on validation tasks, or None.
        provenance: recipe, seed, versions, meta-test accuracy.
        network: the captured module; None: it is captured when the bundle is written.
        loss: name of the loss, one of `LOSSES`.
        label_smoothing: of the cross-entropy, in [0, 1).

    Raises:
        ExportError: shapes that do not fit together.
    """

    name: str
    module: nn.Module | None
    input: InputSpec | ArraySpec
    layer_names: tuple[str, ...]
    alpha: Array
    attention: Mapping[str, Mapping[Side, AttentionModule]] = field(default_factory=dict)
    settings: AttentionSettings = AttentionSettings()
    samples: int = 25
    caps: NDArray[np.int64] | None = None
    benefits: NDArray[np.float64] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    network: Network | None = None
    loss: str = "softmax-cross-entropy"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("alpha", "caps", "benefits"):
            table = getattr(self, name)
            expected = (len(self.alpha), len(self.layer_names))
            if table is not None and table.shape != expected:
                raise ExportError(f"{name}: expected shape {expected} (steps, layers), got {table.shape}")
            if table is not None and not np.all(np.isfinite(table)):
                raise ExportError(f"{name}: has values that are not finite; the training diverged")
        if unknown := set(self.attention) - set(self.layer_names):
            raise ExportError(f"attention for unknown layers: {', '.join(sorted(unknown))}")

    @cached_property
    def captured(self) -> Network:
        """The captured network.

        Raises:
            ExportError: the module holds what no rule recognises, or its layers are not those of the source.
        """
        loss = loss_named(self.loss, self.label_smoothing)
        if self.network is not None:
            return with_learned(loss, self.network, self.module, self.layer_names)
        if self.module is None:
            raise ExportError("a source needs a torch module or a captured network")
        names = loss.forward_layers(self.layer_names)
        network = capture(self.module, tuple(self.input.shape), names)
        return with_learned(loss, network, self.module, self.layer_names)

    @property
    def updated_layers(self) -> frozenset[str]:
        """Layers whose step size is not zero in at least one step."""
        return frozenset(
            name for name, column in zip(self.layer_names, self.alpha.T, strict=True) if column.any()
        )
