"""The program as ONNX Runtime training's official artifacts, for its C, C++, C#, Java and Swift users."""

from .artifacts import PYTHON_VARIABLE, check_expressible, python_with_ort_training, write_artifacts

__all__ = ["PYTHON_VARIABLE", "check_expressible", "python_with_ort_training", "write_artifacts"]
