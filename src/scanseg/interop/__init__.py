"""Exchange of models and plans with other programs."""

from scanseg.interop.monai_bundle import bundle_network, bundle_predictor, export_monai
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
    "bundle_network",
    "bundle_predictor",
    "export_monai",
    "export_nnunet_model",
    "export_nnunet_plans",
    "export_onnx",
    "import_nnunet",
]
