"""Lowering: from the program and a choice of layers to flat step programs with buffers and lifetimes."""

from .lowering import lower, lower_predict
from .table import Buffer, Lowered, Segment, Step, StepProgram, Value

__all__ = ["Buffer", "Lowered", "Segment", "Step", "StepProgram", "Value", "lower", "lower_predict"]
