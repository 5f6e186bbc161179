"""The records of `src/abi.h` and `src/executor.h`, as ctypes."""

from __future__ import annotations

import ctypes

MAX_RANK, INPUTS, OUTPUTS, ATTRIBUTES = 6, 8, 4, 16
LOAD_CODE, SLICES_CODE = -1, -2
ADDRESS, TILE = -1, -2
ABSENT = -1

Shape = ctypes.c_int32 * MAX_RANK


class Tensor(ctypes.Structure):
    """`ea_tensor`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int32),
        ("shape", Shape),
        ("item_bytes", ctypes.c_int32),
    )


class Attribute(ctypes.Union):
    """`ea_attr`."""

    _fields_ = (("i", ctypes.c_int32), ("f", ctypes.c_float))


class Call(ctypes.Structure):
    """`ea_call`."""

    _fields_ = (
        ("inputs", ctypes.POINTER(ctypes.POINTER(Tensor))),
        ("outputs", ctypes.POINTER(ctypes.POINTER(Tensor))),
        ("attrs", ctypes.POINTER(Attribute)),
        ("workspace", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
        ("input_count", ctypes.c_int32),
    )


class ValueRecord(ctypes.Structure):
    """`ea_value`."""

    _fields_ = (
        ("tensor", Tensor),
        ("room", ctypes.c_int64),
        ("sample", ctypes.c_int64),
        ("block", ctypes.c_int64),
        ("base", ctypes.c_int32),
    )


class StepRecord(ctypes.Structure):
    """`ea_step`."""

    _fields_ = (
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_int64),
        ("code", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("operands", ctypes.c_int32),
        ("attrs", ctypes.c_int32),
        ("update", ctypes.c_int32),
        ("slices", ctypes.c_int32),
        ("inner", ctypes.c_int32),
    )


class SlicesRecord(ctypes.Structure):
    """`ea_slices`."""

    _fields_ = (
        ("tile_bytes", ctypes.c_int64),
        ("scratch_bytes", ctypes.c_int64),
        ("sample_work", ctypes.c_int64),
        ("blocks", ctypes.c_int32),
        ("first", ctypes.c_int32),
        ("before", ctypes.c_int32),
        ("each", ctypes.c_int32),
        ("after", ctypes.c_int32),
    )


class TableRecord(ctypes.Structure):
    """`ea_table`."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("slices", ctypes.c_void_p),
        ("attrs", ctypes.c_void_p),
        ("operands", ctypes.c_void_p),
        ("value_count", ctypes.c_int32),
        ("step_count", ctypes.c_int32),
        ("inner_count", ctypes.c_int32),
        ("slices_count", ctypes.c_int32),
        ("attr_count", ctypes.c_int32),
        ("operand_count", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("samples", ctypes.c_int32),
    )


class Report(ctypes.Structure):
    """`ea_report`."""

    _fields_ = (
        ("step", ctypes.c_int32),
        ("value", ctypes.c_int32),
        ("found", ctypes.c_int64),
        ("expected", ctypes.c_int64),
    )


class Span(ctypes.Structure):
    """`ea_span`."""

    _fields_ = (
        ("offset", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
        ("first", ctypes.c_int32),
        ("last", ctypes.c_int32),
        ("buffer", ctypes.c_int32),
    )


AFTER = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)
"""`ea_after`."""
