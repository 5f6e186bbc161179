"""Lowering: from the program and a choice of layers to flat step programs with buffers and lifetimes."""

from .choice import Choice
from .lowering import lower, lower_forward, lower_predict
from .table import Buffer, Lowered, Segment, Slices, Step, StepProgram, Value
from .target import REFERENCE, Target

__all__ = [
    "REFERENCE",
    "Buffer",
    "Choice",
    "Lowered",
    "Segment",
    "Slices",
    "Step",
    "StepProgram",
    "Target",
    "Value",
    "lower",
    "lower_forward",
    "lower_predict",
]
