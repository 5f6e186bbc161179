"""Learners that adapt by forward passes only: one file per learner, found by name in LEARNERS."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .base import Learner
from .cnaps import Cnaps
from .film import Film
from .modules import Modules
from .protonets import ProtoNets
from .simple_cnaps import SimpleCnaps

LEARNERS: Mapping[str, type[Learner]] = MappingProxyType(
    {learner.name: learner for learner in (ProtoNets, Cnaps, SimpleCnaps)}
)

__all__ = ["LEARNERS", "Film", "Learner", "Modules"]
