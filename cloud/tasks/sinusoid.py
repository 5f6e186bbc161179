"""Sinusoids (Finn et al., ICML 2017, section 5.1): y = amplitude * sin(x - phase), amplitude and phase by task."""

from __future__ import annotations

import numpy as np

from ...edge.inputs import ArraySpec
from .functions import Functions, Samples

NAME = "sinusoid"
AMPLITUDE, PHASE, RANGE = (0.1, 5.0), (0.0, np.pi), (-5.0, 5.0)
SPEC = ArraySpec((1,))


def sinusoids(split: str) -> Functions:
    """One split; all splits have the same distribution of tasks, and their samplers' seeds keep them apart."""
    return Functions(NAME, split, SPEC, 1, _draw)


def _draw(rng: np.random.Generator, samples: int) -> Samples:
    """One task: amplitude, phase, then the places x, all uniform."""
    amplitude, phase = rng.uniform(*AMPLITUDE), rng.uniform(*PHASE)
    x = rng.uniform(*RANGE, (samples, 1))
    return x.astype(np.float32), (amplitude * np.sin(x - phase)).astype(np.float32)
