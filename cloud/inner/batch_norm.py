"""BatchNorm with the statistics of the samples at hand, each task's its own (Ioffe and Szegedy, ICML 2015).

Layout as in `ops`: row n*T + t is sample n of task t, so T tasks are one BatchNorm over T*C channels of N samples.
There are no running statistics: whoever passes fewer samples of a task at once gets other statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor


def batch_norm(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    """Normalise rows x (N*T, C, ...) per task and channel, then scale and shift by w and b, both (T, C)."""
    wide = x.reshape(-1, w.numel(), x[0, 0].numel())
    return _normalised(wide, w.reshape(-1), b.reshape(-1), eps).reshape(x.shape)


def normalised_rows(x: Tensor, tasks: int, eps: float) -> Tensor:
    """Rows x (N*T, C, ...) with mean 0 and variance 1 per task and channel."""
    wide = x.reshape(-1, tasks * x.shape[1], x[0, 0].numel())
    return _normalised(wide, None, None, eps).reshape(x.shape)


def _normalised(wide: Tensor, w: Tensor | None, b: Tensor | None, eps: float) -> Tensor:
    return torch.batch_norm(wide, w, b, None, None, True, 0.0, eps, False)
