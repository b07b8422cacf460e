"""Exchange of models and plans with other programs."""

from scanseg.interop.nnunet_export import (
    ExportedModel,
    ExportedPlans,
    export_nnunet_model,
    export_nnunet_plans,
)
from scanseg.interop.nnunet_import import import_nnunet

__all__ = ["ExportedModel", "ExportedPlans", "export_nnunet_model", "export_nnunet_plans", "import_nnunet"]
