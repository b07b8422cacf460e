"""Segment medical images with networks that read an image as a sequence.

Three calls train, predict and score: `scanseg.train(dataset, model)`, `scanseg.load(model).predict(image)` and
`scanseg.evaluate(predictions, references)`. Networks are in `scanseg.networks`, errors in `scanseg.errors`.
"""

from typing import TYPE_CHECKING, Any

from scanseg.version import __version__

if TYPE_CHECKING:
    from scanseg.api import (
        calibrate,
        check,
        convert,
        cross_validate,
        evaluate,
        evaluate_instances,
        export_monai,
        export_nnunet,
        export_nnunet_model,
        export_onnx,
        import_nnunet,
        inspect_folder,
        inspect_source,
        list_series,
        load,
        make_plan,
        predict_cohort,
        preprocess,
        report,
        save_pretrained,
        serve,
        show,
        time_step,
        train,
        view,
        warm_up,
        write_segmentation,
    )

__all__ = [
    "__version__",
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


def __getattr__(name: str) -> Any:
    """Import a function at its first use, for a quick start."""
    if name in __all__:
        from scanseg import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all public names, for completion in editors."""
    return sorted(globals().keys() | set(__all__))
