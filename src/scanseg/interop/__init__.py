"""Models in the formats of other programs."""

from scanseg.interop.onnx_export import export_onnx

__all__ = ["export_onnx"]
