"""The program as ONNX Runtime training's official artifacts, for its C, C++, C#, Java and Swift users."""

from ...edge.bench import PYTHON_VARIABLE
from .artifacts import check_expressible, python_with_ort_training, write_artifacts

__all__ = ["PYTHON_VARIABLE", "check_expressible", "python_with_ort_training", "write_artifacts"]
