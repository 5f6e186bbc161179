"""How numerical libraries are told their number of threads; imports nothing, so that it can be done first."""

from __future__ import annotations

VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables, read when the libraries are loaded."""
