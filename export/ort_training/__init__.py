"""The program as ONNX Runtime training's official artifacts, for its C, C++, C#, Java and Swift users."""

from .artifacts import PYTHON_VARIABLE, write_artifacts

__all__ = ["PYTHON_VARIABLE", "write_artifacts"]
