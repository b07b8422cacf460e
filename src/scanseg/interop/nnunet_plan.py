"""The plan of scanseg for a configuration of nnU-Net."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from scanseg.dataset import read_description
from scanseg.errors import InputError, refuse_faults
from scanseg.interop.nnunet_architecture import network_of_architecture
from scanseg.interop.nnunet_documents import IntensityProperties, NNUNetConfiguration, NNUNetPlans
from scanseg.planning import nnunet_augmentation
from scanseg.specs import (
    CascadeSpec,
    CTNormalization,
    DatasetSpec,
    InferenceSpec,
    LossSpec,
    NoNormalization,
    Normalization,
    Plan,
    PreprocessingSpec,
    RescaleNormalization,
    SamplingSpec,
    TrainingSpec,
    ZScoreNormalization,
    describe_faults,
)

RECIPE = "nnunet"
"""Recipe of imported plans."""

_READERS: dict[str, str | None] = {
    "SimpleITKIO": None,
    "NibabelIO": None,
    "Tiff3DIO": None,
    "NaturalImage2DIO": None,
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIOWithReorient": "RAS",
}
"""Known classes that read images, and the orientation to which they bring volumes."""
_PICTURES = "NaturalImage2DIO"
_SPLINES = "resample_data_or_seg_to_shape"
_TORCH = "resample_torch_fornnunet"
_NO_RESAMPLING = "no_resampling_hack"
_USUAL_THRESHOLD = 3.0
_NEVER = 1e30
"""Threshold of anisotropy that no spacing reaches."""
_SMALLEST_DEVIATION = 1e-8
"""Least standard deviation by which nnU-Net divides."""


@dataclass(frozen=True)
class _Resampling:
    """One of the three resampling functions of a configuration."""

    order: int
    threshold: float
    """Anisotropy from which one axis is resampled separately."""
    is_off: bool = False
    """Arrays keep their grid."""


@dataclass
class _Conversion:
    """Faults and notes of a conversion."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert_plan(
    folder: Path, plans: NNUNetPlans, configuration: NNUNetConfiguration, *, mirror_axes: tuple[int, ...]
) -> tuple[Plan, list[str]]:
    """Convert a configuration of nnU-Net to a plan.

    Args:
        folder: Folder of the training, with `dataset.json`.
        plans: Its plans.
        configuration: Its configuration.
        mirror_axes: Axes of the patch along which its predictions are mirrored.

    Returns:
        The plan, and notes about differences.

    Raises:
        InputError: The configuration has settings that a plan cannot express. One message names all of them.
    """
    conversion = _Conversion()
    dataset = read_description(folder).spec.model_copy(update={"name": plans.dataset_name})
    _check_classes(plans, configuration, conversion)
    preprocessing = _preprocessing(dataset, plans, configuration, conversion)
    num_axes = len(configuration.patch_size)
    network = network_of_architecture(
        configuration.architecture, num_axes=num_axes, faults=conversion.faults, notes=conversion.notes
    )
    refuse_faults(f"{folder}: cannot be imported", conversion.faults)
    assert network is not None
    if configuration.previous_stage is not None:
        conversion.notes.append(
            "cascade: where more than two labels of the first stage meet, resampling takes the label with the largest "
            "weight, and nnU-Net the last one of at least half of the weight"
        )
    try:
        plan = Plan(
            recipe=RECIPE,
            dataset=dataset,
            num_axes=2 if _has_pictures(plans) else 3,
            preprocessing=preprocessing,
            sampling=SamplingSpec(patch_size=configuration.patch_size, batch_size=configuration.batch_size),
            augmentation=nnunet_augmentation(configuration.patch_size, mirror_axes=mirror_axes),
            network=network,
            training=TrainingSpec(loss=LossSpec(dice_over_batch=configuration.batch_dice)),
            inference=InferenceSpec(mirror_axes=mirror_axes, window_batch=1 if num_axes == 3 else 4),
            cascade=None if configuration.previous_stage is None else CascadeSpec(),
        )
    except ValidationError as error:
        raise InputError(f"{folder}: cannot be imported: {describe_faults(error, content={})}.") from error
    return plan, conversion.notes


def _has_pictures(plans: NNUNetPlans) -> bool:
    """Return whether the images of a data set have two axes."""
    return plans.image_reader_writer == _PICTURES or plans.original_median_shape_after_transp[0] == 1


def _check_classes(plans: NNUNetPlans, configuration: NNUNetConfiguration, conversion: _Conversion) -> None:
    """Check the classes that read, preprocess and decide labels."""
    if plans.image_reader_writer not in _READERS:
        conversion.faults.append(
            f"image_reader_writer: expected one of {', '.join(_READERS)}, got {plans.image_reader_writer}"
        )
    if configuration.preprocessor_name != "DefaultPreprocessor":
        conversion.faults.append(
            f"preprocessor_name: expected DefaultPreprocessor, got {configuration.preprocessor_name}"
        )
    if plans.label_manager != "LabelManager":
        conversion.faults.append(f"label_manager: expected LabelManager, got {plans.label_manager}")
    if plans.image_reader_writer == "Tiff3DIO":
        conversion.notes.append(
            "TIFF files without a JSON file: nnU-Net assumes 1 mm, and scanseg reads the spacing in the file, if any"
        )


def _preprocessing(
    dataset: DatasetSpec, plans: NNUNetPlans, configuration: NNUNetConfiguration, conversion: _Conversion
) -> PreprocessingSpec:
    """Return the preprocessing of a configuration."""
    images = _resampling("data", configuration, conversion)
    labels = _resampling("seg", configuration, conversion)
    logits = _resampling("probabilities", configuration, conversion)
    if logits.order != 1 and not logits.is_off:
        conversion.faults.append(f"resampling_fn_probabilities: expected order 1, got {logits.order}")
    kinds = {(each.is_off, each.threshold) for each in (images, logits)}
    if configuration.previous_stage is not None:
        kinds.add((labels.is_off, labels.threshold))
        if labels.order not in (0, 1):
            conversion.faults.append(f"resampling_fn_seg: expected order 0 or 1, got {labels.order}")
    if len(kinds) > 1:
        conversion.faults.append(
            "resampling: expected the same treatment of anisotropic images (force_separate_z, threshold) for images "
            "and probabilities, got different ones"
        )
    if images.order not in (0, 1, 3):
        conversion.faults.append(f"resampling_fn_data: expected order 0, 1 or 3, got {images.order}")
    normalizations = _normalizations(dataset, plans, configuration, conversion)
    image_order: Literal[0, 1, 3] = 0 if images.order == 0 else 1 if images.order == 1 else 3
    return PreprocessingSpec(
        orientation=_READERS.get(plans.image_reader_writer),
        axis_order=_axis_order(plans, conversion),
        normalizations=normalizations or (NoNormalization(),),
        spacing=None if images.is_off else _spacing(plans, configuration, conversion),
        image_order=image_order,
        label_order=0 if labels.order == 0 else 1,
        anisotropy_threshold=images.threshold,
    )


def _axis_order(plans: NNUNetPlans, conversion: _Conversion) -> tuple[int, int, int]:
    """Return the axis order of the plans."""
    if sorted(plans.transpose_forward) != [0, 1, 2]:
        conversion.faults.append(
            f"transpose_forward: expected a permutation of 0, 1, 2, got {plans.transpose_forward}"
        )
        return (0, 1, 2)
    return plans.transpose_forward


def _spacing(
    plans: NNUNetPlans, configuration: NNUNetConfiguration, conversion: _Conversion
) -> tuple[float | None, float, float] | None:
    """Return the target spacing along z, y, x."""
    if not all(0 < size < math.inf for size in configuration.spacing):
        conversion.faults.append(f"spacing: expected positive numbers, got {configuration.spacing}")
        return None
    if plans.image_reader_writer == _PICTURES and configuration.spacing == (1.0, 1.0):
        return None
    *z, y, x = configuration.spacing
    return (z[0] if z else None, y, x)


def _resampling(
    part: Literal["data", "seg", "probabilities"],
    configuration: NNUNetConfiguration,
    conversion: _Conversion,
) -> _Resampling:
    """Return a resampling function of a configuration. Faults are collected."""
    key = f"resampling_fn_{part}"
    name: str = getattr(configuration, key)
    options: dict[str, Any] = dict(getattr(configuration, f"{key}_kwargs"))
    if name == _NO_RESAMPLING:
        return _Resampling(order=1, threshold=_USUAL_THRESHOLD, is_off=True)
    if name not in (_SPLINES, _TORCH):
        known = ", ".join((_SPLINES, _TORCH, _NO_RESAMPLING))
        conversion.faults.append(f"{key}: expected one of {known}, got {name}")
        return _Resampling(order=1, threshold=_USUAL_THRESHOLD)
    for unimportant in ("is_seg", "num_threads", "device", "memefficient_seg_resampling"):
        options.pop(unimportant, None)
    separate = options.pop("force_separate_z", False if name == _SPLINES else None)
    threshold = options.pop("separate_z_anisotropy_threshold", _USUAL_THRESHOLD)
    order: int = options.pop("order", 3) if name == _SPLINES else 1
    expected = {"order_z": 0} if name == _SPLINES else {"mode": "linear", "aniso_axis_mode": "nearest-exact"}
    if separate not in (None, False) or not isinstance(threshold, int | float) or not threshold > 0:
        conversion.faults.append(
            f"{key}: expected force_separate_z null or false, and a positive threshold, got {separate} and {threshold}"
        )
        threshold = _USUAL_THRESHOLD
    for option, value in options.items():
        if value != expected.get(option):
            conversion.faults.append(
                f"{key}: {option}: expected {expected.get(option, 'no such option')}, got {value}"
            )
    return _Resampling(order=order, threshold=_NEVER if separate is False else float(threshold))


def _normalizations(
    dataset: DatasetSpec, plans: NNUNetPlans, configuration: NNUNetConfiguration, conversion: _Conversion
) -> tuple[Normalization, ...]:
    """Return the normalization of each channel. Faults are collected."""
    schemes = configuration.normalization_schemes
    if len(schemes) != dataset.num_channels:
        conversion.faults.append(
            f"normalization_schemes: expected one per channel ({dataset.num_channels}), got {len(schemes)}"
        )
    properties = plans.foreground_intensity_properties_per_channel
    found = [
        _normalization(name, masked=masked, channel=number, properties=properties.get(str(number)))
        for number, (name, masked) in enumerate(zip(schemes, configuration.use_mask_for_norm, strict=True))
    ]
    conversion.faults += [each for each in found if isinstance(each, str)]
    return tuple(each for each in found if not isinstance(each, str))


def _normalization(
    name: str, *, masked: bool, channel: int, properties: IntensityProperties | None
) -> Normalization | str:
    """Return a normalization, or the reason against its import."""
    match name:
        case "ZScoreNormalization":
            return ZScoreNormalization(nonzero_only=masked)
        case "CTNormalization" if properties is None:
            return f"foreground_intensity_properties_per_channel: channel {channel} is missing"
        case "CTNormalization":
            assert properties is not None
            return CTNormalization(
                lower=properties.percentile_00_5,
                upper=properties.percentile_99_5,
                mean=properties.mean,
                standard_deviation=max(properties.std, _SMALLEST_DEVIATION),
            )
        case "NoNormalization":
            return NoNormalization()
        case "RescaleTo01Normalization":
            return RescaleNormalization()
        case "RGBTo01Normalization":
            return RescaleNormalization(lower=0, upper=255)
        case _:
            return f"normalization_schemes: channel {channel}: {name} is unknown"
