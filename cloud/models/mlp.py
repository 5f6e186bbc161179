"""MLP for feature vectors and regression: fully connected layers with ReLU between them."""

from __future__ import annotations

from torch import Tensor, nn

from .parts import Shape


class MLP(nn.Module):
    """Layers hidden1, hidden2, ..., fc.

    Args:
        sample_shape: of one sample, any rank; its elements are the features.
        outputs: logits, or values to regress on.
        hidden: units of the hidden layers; (40, 40) for MAML's sinusoids, (100, 100) for its policies.

    Raises:
        ValueError: a sample has no elements, or a layer no units.
    """

    def __init__(self, sample_shape: Shape, outputs: int, hidden: tuple[int, ...] = (100, 100)) -> None:
        super().__init__()
        features = 1
        for axis in sample_shape:
            features *= axis
        if not sample_shape or features < 1 or min(hidden, default=1) < 1:
            raise ValueError(
                f"an MLP needs features and units: expected sample_shape and hidden of sizes above 0, "
                f"got {tuple(sample_shape)} and {hidden}"
            )
        if len(sample_shape) > 1:
            self.flatten = nn.Flatten()
        for index, units in enumerate(hidden, start=1):
            self.add_module(f"hidden{index}", nn.Linear(features, units))
            self.add_module(f"relu{index}", nn.ReLU())
            features = units
        self.fc = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Samples (N, *sample_shape) to outputs (N, outputs)."""
        for part in self.children():
            x = part(x)
        return x
