"""How meta-parameters learn from many tasks: one file per method, found by name in METHODS."""

from __future__ import annotations

from .anil import Anil
from .base import Batch, Meta, MetaGradient, Method, MethodConfig
from .boil import Boil
from .fomaml import Fomaml
from .fomamlpp import FomamlPlusPlus
from .imaml import Imaml
from .leap import Leap
from .maml import Maml
from .mamlpp import MamlPlusPlus
from .mrml import Mrml
from .pmeta import PMeta
from .reptile import Reptile

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(Maml, Anil, Boil, MamlPlusPlus, PMeta),
        *(Fomaml, FomamlPlusPlus, Reptile, Leap),
        *(Imaml, Mrml),
    )
}

__all__ = ["METHODS", "Batch", "Meta", "MetaGradient", "Method", "MethodConfig"]
