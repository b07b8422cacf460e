"""Models in the formats of other programs."""

from scanseg.interop.onnx_export import TOLERANCE, export_onnx
from scanseg.interop.onnx_graph import DEFAULT_OPSET

__all__ = ["DEFAULT_OPSET", "TOLERANCE", "export_onnx"]
