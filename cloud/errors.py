"""The errors the cloud part raises on purpose."""

from __future__ import annotations


class ConfigError(ValueError):
    """A configuration or a data set that cannot work; one line naming the field, the value and the remedy."""


class TrainingError(RuntimeError):
    """Training cannot go on, although the configuration was fine (the loss is no number, nothing to keep)."""


class TrainingWarning(UserWarning):
    """Training goes on, but what it leaves behind may be worth little; the line says why and what to do."""
