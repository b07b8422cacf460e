"""Segmentation of medical images with networks that read an image as a sequence.

The whole way in three calls: `scanseg.train(dataset, model)`, `scanseg.load(model).predict(image)`,
`scanseg.evaluate(predictions, references)`. Networks alone are in `scanseg.networks`, errors in `scanseg.errors`.
"""

from typing import TYPE_CHECKING, Any

from scanseg.version import __version__

if TYPE_CHECKING:
    from scanseg.api import (
        check,
        convert,
        cross_validate,
        evaluate,
        evaluate_instances,
        load,
        make_plan,
        preprocess,
        train,
    )

__all__ = [
    "__version__",
    "check",
    "convert",
    "cross_validate",
    "evaluate",
    "evaluate_instances",
    "load",
    "make_plan",
    "preprocess",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load the functions when they are first used, so that the command starts quickly."""
    if name in __all__:
        from scanseg import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the functions before they are first used, as those that complete names ask for them."""
    return sorted(globals().keys() | set(__all__))
