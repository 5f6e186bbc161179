"""The leaf types of meta-training: batches of tasks, meta-parameters, the settings of a method.

Shapes: T tasks, N support samples, M query samples, K inner steps, L layers (the order of `Network.layers`).
A task's tensors have equal shapes within a batch and are stacked in front: support_x is (T, N, C, H, W).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

BW_INPUTS = ("rms", "raw")
ATTENTION_OVER = ("batch", "sample")
MASKS = ("gradients", "maps")
CURVATURES = ("prox", "mu", "cg_damping")
STRENGTHS = ("penalty_strength", "film_penalty")
PENALTIES = ("none", "activations", "activations+gradients", "peak")
COVARIANCES = ("class", "identity")


@dataclass(frozen=True)
class Batch:
    """T tasks of equal shape: x float (T, N, C, H, W) already preprocessed.

    y: labels in [0, ways), int64 (T, N), or targets of a regression, float (T, N, outputs).
    keys: (seed, index) of each task, from which all that is drawn at random within it derives; () where nothing is.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    keys: tuple[tuple[int, ...], ...] = field(default=(), kw_only=True)

    def __len__(self) -> int:
        return len(self.support_x)

    def chunk(self, start: int, stop: int) -> Batch:
        """The tasks start..stop-1 as a smaller batch."""
        part = slice(start, stop)
        tensors = (self.support_x, self.support_y, self.query_x, self.query_y)
        return Batch(*(value[part] for value in tensors), keys=self.keys[part])

    def to(self, *args: Any) -> Batch:
        """Move samples and targets (dtype or device) and labels (device only)."""
        support, query = self.support_x.to(*args), self.query_x.to(*args)
        answers = (
            y.to(*args) if y.is_floating_point() else y.to(support.device)
            for y in (self.support_y, self.query_y)
        )
        return Batch(support, next(answers), query, next(answers), keys=self.keys)


class Tasks(Protocol):
    """The tasks of an outer step, which are taken chunk by chunk: a `Batch`, or what draws them meanwhile."""

    def __len__(self) -> int: ...

    def chunk(self, start: int, stop: int) -> Batch:
        """The tasks start..stop-1, where the meta-parameters are."""


@dataclass(frozen=True)
class Meta:
    """Everything that adaptation starts from, as two plain mappings name -> tensor.

    learned: weights under their module names, `alpha` (K, L) where it is learned, and
        `attention.LAYER.fw|bw.hidden|out.weight|bias`.
    fixed: what the optimizer never touches: `alpha` (K, L) where it is not learned, `open` (L,) with 0 for
        layers frozen at every step, `benefit` (L,) a running mean of each layer's first-order loss decrease.
    "Which layers" has one representation: an exact zero in alpha.
    """

    learned: dict[str, Tensor]
    fixed: dict[str, Tensor]

    @property
    def alpha(self) -> Tensor:
        """Step sizes (K, L), exact zeros where a layer is not updated."""
        return self.learned["alpha"] if "alpha" in self.learned else self.fixed["alpha"]

    @property
    def updated(self) -> Tensor:
        """Whether any step updates a layer, bool (L,)."""
        return (self.alpha != 0).any(0)

    @property
    def zero_share(self) -> float:
        """Share of the step sizes that are exactly zero."""
        return float((self.alpha == 0).double().mean())

    def to(self, *args: Any) -> Meta:
        """The same meta-parameters in another dtype or on another device."""
        return Meta(
            {name: value.detach().to(*args) for name, value in self.learned.items()},
            {name: value.to(*args) for name, value in self.fixed.items()},
        )


@dataclass(frozen=True)
class MethodConfig:
    """Settings of the inner loop and of what is meta-learned; every field is checked on construction.

    Raises:
        ValueError: names the field, what was expected and what was given.
    """

    inner_steps: int = 5
    inner_step_size: float = 0.1
    first_order: bool = False
    first_order_until: float = 0.0
    """Fraction of training with first-order gradients (MAML++'s first-order epochs)."""
    multi_step_until: float = 0.0
    """Fraction of training over which the multi-step loss is annealed away (E epochs in the paper)."""
    penalty: str = "none"
    penalty_strength: float = 0.0
    warmup_fraction: float = 0.1
    """Fraction of training without penalty."""
    target_fraction: float = 0.55
    """`peak` penalty: planned dynamic peak to reach, relative to the dense plan."""
    prune_at: float = 0.5
    """`peak` penalty: fraction of training after which whole layers are zeroed."""
    attention: bool = True
    channel_alpha: bool = False
    """In place of attention: learned step sizes of every layer's input and output channels (p-Meta, table 4)."""
    attention_masks: str = "gradients"
    """What attention multiplies: weight gradients, or, as an ablation, the maps themselves (p-Meta, table 7)."""
    rho_fw: float | None = 0.3
    """Share that forward attention clips; none: no forward attention."""
    rho_bw: float | None = 0.0
    """The same on the output side."""
    bw_input: str = "rms"
    attention_over: str = "batch"
    """In meta-training, attention sees the mean over the support batch (the paper) or, as on the device, each
    sample on its own. Validation and every reported accuracy are per sample whatever is set here."""
    attention_ratio: int = 1
    """Hidden width of an attention module is channels // ratio."""
    cap: int | None = None
    """Forward attention keeps at most this many channels of a sample (None: only the bound that rho gives)."""
    alpha_rate: float = 0.01
    """Learning rate of alpha relative to inner_step_size (its own Adam group)."""
    checkpoint_steps: bool = False
    """Compute every inner step twice and keep its graph only meanwhile: to second order memory grows by a set of
    weights per step, to first order not at all."""
    compile_steps: bool = False
    """Trace and compile the outer gradient of a chunk of tasks (minutes, at the first step): up to rounding the same
    gradient, made for GPUs."""
    prox: float = 1.0
    """iMAML: lambda of the proximal term lambda/2 |w' - w|^2 of the inner loss."""
    mu: float = 0.5
    """MRML: the inner loss has mu/2 |u - u_0|^2 on the task part u."""
    task_layers: tuple[str, ...] = ()
    """MRML: names of the layers that adapt, u_0 learned; none: the output layer, from u_0 = 0."""
    cg_steps: int = 5
    """iMAML and MRML: conjugate-gradient steps."""
    cg_damping: float = 0.0
    """iMAML: solves ((1 + damping) I + H/lambda) v = g; exact at 0, the authors' code has 1."""
    film: bool = True
    """CNAPs and Simple CNAPs: FiLM layers in the extractor; without them the features are the same for every task."""
    covariance: str = "class"
    """Simple CNAPs: Q_c of every class, or, as an ablation, the identity in its place."""
    film_penalty: float = 0.001
    """CNAPs and Simple CNAPs: weight of the squared distance of the FiLM parameters from 1 and 0."""
    gradient_clamp: float | None = None
    """Outer gradients are clamped to +- this per element."""
    tasks_per_chunk: int = 4
    """Tasks differentiated together; changes speed and memory, not the gradient."""

    def __post_init__(self) -> None:
        checks = {
            "inner_steps": (self.inner_steps >= 1, "at least 1"),
            "inner_step_size": (self.inner_step_size > 0, "above 0"),
            "penalty": (self.penalty in PENALTIES, f"one of {', '.join(PENALTIES)}"),
            "channel_alpha": (not (self.channel_alpha and self.attention), "false, or attention = false"),
            "attention_masks": (self.attention_masks in MASKS, f"one of {', '.join(MASKS)}"),
            "rho_fw": (self.rho_fw is None or 0 <= self.rho_fw < 1, "in [0, 1), or none"),
            "rho_bw": (self.rho_bw is None or 0 <= self.rho_bw < 1, "in [0, 1), or none"),
            "attention": (bool(self.rho) or not self.attention, "false where rho_fw and rho_bw are none"),
            "bw_input": (self.bw_input in BW_INPUTS, f"one of {', '.join(BW_INPUTS)}"),
            "attention_over": (self.attention_over in ATTENTION_OVER, f"one of {', '.join(ATTENTION_OVER)}"),
            "attention_ratio": (self.attention_ratio >= 1, "at least 1"),
            "cap": (
                self.cap is None or (self.cap >= 1 and self.rho_fw is not None),
                "at least 1, or none; none where rho_fw is none",
            ),
            "alpha_rate": (self.alpha_rate >= 0, "at least 0"),
            "prox": (self.prox > 0, "above 0"),
            "mu": (self.mu > 0, "above 0"),
            "cg_steps": (self.cg_steps >= 1, "at least 1"),
            "cg_damping": (self.cg_damping >= 0, "at least 0"),
            "task_layers": (len(set(self.task_layers)) == len(self.task_layers), "names without repetition"),
            "covariance": (self.covariance in COVARIANCES, f"one of {', '.join(COVARIANCES)}"),
            "gradient_clamp": (self.gradient_clamp is None or self.gradient_clamp > 0, "above 0, or none"),
            "tasks_per_chunk": (self.tasks_per_chunk >= 1, "at least 1"),
        }
        fractions = (
            "first_order_until",
            "multi_step_until",
            "warmup_fraction",
            "target_fraction",
            "prune_at",
        )
        checks |= {name: (0 <= getattr(self, name) <= 1, "in [0, 1]") for name in fractions}
        checks |= {name: (getattr(self, name) >= 0, "at least 0") for name in STRENGTHS}
        unbounded = ("inner_step_size", "alpha_rate", "gradient_clamp", *STRENGTHS, *CURVATURES)
        finite = [(name, (math.isfinite(getattr(self, name) or 0), "finite")) for name in unbounded]
        for name, (holds, expected) in [*finite, *checks.items()]:
            if not holds:
                raise ValueError(f"method setting {name} must be {expected}, got {getattr(self, name)!r}")

    @property
    def rho(self) -> dict[str, float]:
        """Clipped share by side, "fw" or "bw", of those sides that attention has."""
        given = {"fw": self.rho_fw, "bw": self.rho_bw}
        return {side: share for side, share in given.items() if share is not None}
