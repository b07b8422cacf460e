"""The functions behind the commands."""

from scanseg.api.cohort import predict_cohort
from scanseg.api.datasets import check, convert, inspect_folder, inspect_source, list_series
from scanseg.api.exchange import export_monai, export_nnunet, export_nnunet_model, export_onnx, import_nnunet
from scanseg.api.plans import make_plan, preprocess, time_step, warm_up
from scanseg.api.prediction import load, save_pretrained, write_segmentation
from scanseg.api.reports import calibrate, report, show
from scanseg.api.scores import evaluate, evaluate_instances
from scanseg.api.serving import serve, view
from scanseg.api.training import cross_validate, train

__all__ = [
    "calibrate",
    "check",
    "convert",
    "cross_validate",
    "evaluate",
    "evaluate_instances",
    "export_monai",
    "export_nnunet",
    "export_nnunet_model",
    "export_onnx",
    "import_nnunet",
    "inspect_folder",
    "inspect_source",
    "list_series",
    "load",
    "make_plan",
    "predict_cohort",
    "preprocess",
    "report",
    "save_pretrained",
    "serve",
    "show",
    "time_step",
    "train",
    "view",
    "warm_up",
    "write_segmentation",
]
