"""Engines: what runs a plan."""

from .base import (
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

__all__ = [
    "Adaptation",
    "AdaptationInterrupted",
    "Engine",
    "Hooks",
    "NonFiniteError",
    "Progress",
    "Samples",
    "Support",
    "Weights",
]
