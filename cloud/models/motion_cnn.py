"""1-D CNN for motion sensors: 4 x [conv over 5 samples, norm, ReLU, max-pool by 2], average over time, fc."""

from __future__ import annotations

from torch import Tensor, nn

from .parts import Shape, check_width, norm_layer, rounded

CHANNELS, KERNEL, BLOCKS = 64, 5, 4


class MotionCNN(nn.Module):
    """The convolutions of DeepConvLSTM (64 filters over 5 samples), with pooling in place of the LSTM.

    Args:
        sample_shape: (C, L), sensor channels and samples in time, at least 16 (for example (9, 128)).
        outputs: of the classifier.
        norm: "group" or "batch".
        width: multiplies the 64 channels.

    Raises:
        ValueError: a sample has another form or is too short for four halvings.
    """

    def __init__(self, sample_shape: Shape, outputs: int, norm: str = "group", width: float = 1.0) -> None:
        super().__init__()
        if len(sample_shape) != 2 or sample_shape[0] < 1 or sample_shape[1] < 2**BLOCKS:
            raise ValueError(
                f"the motion CNN takes samples (channels, length), length at least {2**BLOCKS}, "
                f"got {tuple(sample_shape)}"
            )
        make_norm, channels = norm_layer(norm, dims=1), rounded(CHANNELS * check_width(width))
        for index in range(1, BLOCKS + 1):
            before = sample_shape[0] if index == 1 else channels
            self.add_module(f"conv{index}", nn.Conv1d(before, channels, KERNEL, padding=KERNEL // 2))
            self.add_module(f"norm{index}", make_norm(channels))
            self.add_module(f"relu{index}", nn.ReLU())
            self.add_module(f"pool{index}", nn.MaxPool1d(2))
        self.average = AverageOverTime()
        self.fc = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Windows (N, C, L) to logits (N, outputs)."""
        for part in self.children():
            x = part(x)
        return x


class AverageOverTime(nn.Module):
    """(N, C, L) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the last axis."""
        return x.mean(2)
