"""The process around a measured run: what libraries do once is done before it, freed memory is given back."""

from __future__ import annotations

import ctypes
import io

import numpy as np
from PIL import Image


def warm_up() -> None:
    """Do once what libraries load or allocate on first use: codecs, archives, random numbers, products."""
    random, archive = np.random.default_rng(0), io.BytesIO()
    np.savez(archive, images=random.integers(0, 255, 8, np.uint8), inputs=random.random(8, np.float32))
    archive.seek(0)
    for values in np.load(archive).values():
        np.unique(values, return_inverse=True)
        np.isfinite(values).all()
    for kind in ("PNG", "JPEG"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, kind)
        Image.open(stream).convert("L").resize((4, 4)).tobytes()
    square = np.ones((64, 64), np.float32)
    square @ square


def give_back_freed_memory() -> None:
    """Return freed heap pages to the system where the C library can (glibc's malloc_trim).

    After a large decode glibc keeps the freed pages, and the arena would come on top of them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
