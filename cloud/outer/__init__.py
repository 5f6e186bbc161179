"""How meta-parameters learn from many tasks: one file per method, found by name in METHODS."""

from __future__ import annotations

from .base import Batch, Meta, MetaGradient, Method, MethodConfig

__all__ = ["Batch", "Meta", "MetaGradient", "Method", "MethodConfig"]
