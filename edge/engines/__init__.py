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
from .native import NativeEngine
from .reference import ReferenceEngine
from .registry import ENGINES, default_engine, engine_named, installed_engines

__all__ = [
    "ENGINES",
    "NO_HOOKS",
    "Adaptation",
    "AdaptationInterrupted",
    "Engine",
    "Hooks",
    "NativeEngine",
    "NonFiniteError",
    "Progress",
    "ReferenceEngine",
    "Samples",
    "Support",
    "Weights",
    "default_engine",
    "engine_named",
    "installed_engines",
]
