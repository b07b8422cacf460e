"""Models of a server, loaded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanseg.errors import UsageError
from scanseg.inference import Predictor, Runtime, load
from scanseg.pretrained import find_model, is_address
from scanseg.specs import DatasetSpec

if TYPE_CHECKING:
    from scanseg.runtime import Precision


def load_models(
    models: Sequence[str | Path],
    *,
    device: str,
    precision: "Precision | None" = None,
    runtime: "Runtime | None" = None,
) -> dict[str, Predictor]:
    """Load models under the names by which clients choose them.

    Args:
        models: Folders, names or addresses of models.
        device: Device of all models.
        precision: Precision of matrix products. `None`: that of the training.
        runtime: Library that computes exported models. `None`: the default one.

    Returns:
        The models by name: the last part of the folder or address.

    Raises:
        InputError: A model cannot be loaded.
        UsageError: No model is given, or two have the same name.
    """
    named = dict[str, str | Path]()
    for model in models:
        name = _name_of(str(model))
        if name in named:
            raise UsageError(f"models: expected different names, got {name} twice. Rename a folder.")
        named[name] = model
    if not named:
        raise UsageError("models: expected at least one model, got none. Give a folder or a name.")
    return {
        name: load(find_model(model), device=device, precision=precision, runtime=runtime)
        for name, model in named.items()
    }


def _name_of(model: str) -> str:
    """Return the name of a model."""
    if is_address(model):
        return model.partition("#")[0].rstrip("/").rpartition("/")[2].removesuffix(".zip").partition("@")[0]
    return Path(model).resolve().name


def describe_model(name: str, predictor: Predictor) -> dict[str, Any]:
    """Return the description of a model as JSON values.

    Args:
        name: Name of the model.
        predictor: The model.
    """
    plan = predictor.plan
    dataset = plan.dataset
    return {
        "name": name,
        "recipe": predictor.recipe,
        "num_axes": plan.num_axes,
        "channels": list(dataset.channel_names),
        "labels": {label: list(values) for label, values in dataset.foreground.items()},
        "can_mirror": bool(plan.inference.mirror_axes),
        "dataset": dataset.model_dump(mode="json"),
        "warnings": list(predictor.warnings),
    }


def label_names(dataset: DatasetSpec) -> dict[int, str]:
    """Return the name of each label value.

    Args:
        dataset: Labels or regions. A value of several regions has the name of the smallest one.
    """
    names = dict[int, str]()
    for name, values in sorted(dataset.foreground.items(), key=lambda item: -len(item[1])):
        names |= dict.fromkeys(values, name)
    return dict(sorted(names.items()))
