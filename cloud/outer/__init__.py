"""How meta-parameters learn from many tasks: one file per method, found by name in METHODS."""

from __future__ import annotations

from .anil import Anil
from .base import Batch, Meta, MetaGradient, Method, MethodConfig
from .maml import Maml
from .mamlpp import MamlPlusPlus
from .pmeta import PMeta

METHODS: dict[str, type[Method]] = {method.name: method for method in (Maml, Anil, MamlPlusPlus, PMeta)}

__all__ = ["METHODS", "Batch", "Meta", "MetaGradient", "Method", "MethodConfig"]
