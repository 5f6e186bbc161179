"""Engines: what runs a plan."""

from .base import (
    NO_HOOKS,
    Adaptation,
    AdaptationInterrupted,
    Engine,
    Hooks,
    NonFiniteError,
    Progress,
    Samples,
    Support,
    Weights,
)
from .reference import ReferenceEngine
from .registry import ENGINES, engine_named, installed_engines

__all__ = [
    "ENGINES",
    "NO_HOOKS",
    "Adaptation",
    "AdaptationInterrupted",
    "Engine",
    "Hooks",
    "NonFiniteError",
    "Progress",
    "ReferenceEngine",
    "Samples",
    "Support",
    "Weights",
    "engine_named",
    "installed_engines",
]
