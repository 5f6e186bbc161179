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

__all__ = [
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
]
