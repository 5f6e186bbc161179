"""Run an ONNX model in stock onnxruntime on plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime
from edge_adapt.export.onnx_graph import build_graph

from .cases import Example


def run_model(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    typed = {item.name: np.asarray(feeds[item.name], types[item.type]) for item in session.get_inputs()}
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, typed), strict=True))


def run_program(example: Example, outputs: Iterable[str], **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Expand what the outputs need, every parameter fed, and run it in float32."""
    model = build_graph(example.program, {}, {name: name for name in outputs}, adjustable=True)
    return run_model(model, example.values(**inputs))
