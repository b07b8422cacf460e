"""Functions that load models and write their results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath
from scanseg.errors import InputError
from scanseg.specs import SegmentCodes

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from scanseg.inference import Predictor, Runtime
    from scanseg.models import Weights
    from scanseg.pretrained import WeightType
    from scanseg.runtime import Precision


def load(
    model: AnyPath,
    *,
    device: str = "auto",
    weights: "Weights" = "exported",
    precision: "Precision | None" = None,
    cuda_graph: bool = True,
    runtime: "Runtime | None" = None,
) -> "Predictor":
    """Load a model for prediction.

    Args:
        model: A model folder, the folder of a cross-validation, whose models predict as one, or an exported model. Or
            the name or address of a model, see `scanseg.pretrained.find_model`.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first available one.
        weights: Weights to load: `exported`, `last`, or `best` (highest validation Dice).
        precision: Precision of matrix products. Defaults to that of the plan's training.
        cuda_graph: Replay the network as a CUDA graph on a GPU with CUDA, see `scanseg.inference.Predictor`.
        runtime: Library that computes an exported model on the CPU: `onnxruntime` (the default) or `openvino`.

    Raises:
        InputError: The folder is not a model folder, no model has the name, or its training has not finished.
        UsageError: The device is missing, weights or precision are unknown, or an option does not fit the model.

    Example:
        >>> import scanseg
        >>> prediction = scanseg.load("MODEL", device="cpu").predict("image.png")
        >>> prediction.label_map.shape
        (24, 24)
    """
    from scanseg.inference import load as load_predictor

    return load_predictor(
        find_folder(model),
        device=device,
        weights=weights,
        precision=precision,
        cuda_graph=cuda_graph,
        runtime=runtime,
    )


def find_folder(model: AnyPath) -> Path:
    """Return the folder of a model.

    Args:
        model: As for `load`.

    Raises:
        InputError: No folder and no model has the name.
    """
    folder = Path(model)
    if folder.exists():  # exported models need no PyTorch, which the search for names loads
        return folder
    from scanseg.pretrained import find_model

    return find_model(model)


def save_pretrained(
    model: AnyPath,
    output: AnyPath,
    *,
    weight_type: "WeightType" = "float32",
    about: str | None = None,
) -> Path:
    """Save a trained model to share it: plan, weights and card.

    `scanseg.load` takes the output, and the address of an archive. Names of cases, paths, host names, checkpoints and
    label maps are left out.

    Args:
        model: A model folder, or the folder of a cross-validation.
        output: Folder to write, or a file ending in `.zip`. It must not exist.
        weight_type: Type of the stored weights. `float16` halves their size.
        about: Text in Markdown for the card, such as source and licence of the data.

    Returns:
        The output.

    Raises:
        InputError: The folder is not a model folder, its training has not finished, or a weight is too large for
            float16.
        UsageError: The output exists, or the type is unknown.

    Example:
        >>> import scanseg
        >>> folder = scanseg.save_pretrained("MODEL", "shared", about="Data: our discs.")
        >>> sorted(path.name for path in folder.iterdir())
        ['README.md', 'model.safetensors', 'plan.json']
    """
    from scanseg.pretrained import save_model

    save_model(Path(model), Path(output), weight_type=weight_type, about=about)
    return Path(output)


def write_segmentation(
    path: AnyPath,
    label_map: "UInt8[np.ndarray, 'z y x']",
    *,
    series: AnyPath,
    labels: Mapping[str, int | Sequence[int]],
    segment_codes: SegmentCodes | None = None,
    model: str = "scanseg",
) -> None:
    """Write a label map as a DICOM Segmentation of a series.

    Args:
        path: File to write. An existing file is replaced.
        label_map: Label map on the grid of the series, such as `prediction.label_map`.
        series: Folder or zip file of the series, with `/UID` if it holds several.
        labels: Name to the value of a label, or to the values of a region. 0 is no label.
        segment_codes: Codes of the segments by label. `None`: all are coded as tissue.
        model: Name of the model, for the header.

    Raises:
        InputError: highdicom is not installed, the series cannot be read, the shape differs, a value or a code has no
            label, or the file cannot be written.

    Example:
        >>> import numpy as np, scanseg
        >>> label_map = np.ones((4, 5, 6), np.uint8)
        >>> scanseg.write_segmentation("liver.dcm", label_map, series="SERIES", labels={"liver": 1})
    """
    from scanseg.imaging import SegmentationSource, make_segments, read_geometry
    from scanseg.imaging import write_segmentation as write

    like = read_geometry([Path(series)])
    if like is None:
        raise InputError(
            f"{series}: expected a DICOM series, got another image. Give its folder or zip file."
        )
    values = {name: (value,) if isinstance(value, int) else tuple(value) for name, value in labels.items()}
    segments = make_segments(values, segment_codes)
    write(Path(path), label_map, like=like, segments=segments, source=SegmentationSource(model))
