"""Exchange of models and plans with other programs."""

from scanseg.interop.nnunet_export import (
    ExportedPlans,
    ExportedTraining,
    export_nnunet_model,
    export_nnunet_plans,
)
from scanseg.interop.nnunet_import import import_nnunet
from scanseg.interop.onnx_export import export_onnx

__all__ = [
    "ExportedPlans",
    "ExportedTraining",
    "export_nnunet_model",
    "export_nnunet_plans",
    "export_onnx",
    "import_nnunet",
]
