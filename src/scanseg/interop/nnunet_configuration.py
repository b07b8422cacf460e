"""Configurations of nnU-Net for plans of ours."""

from collections.abc import Sequence
from typing import Any

from scanseg.errors import UsageError, refuse_faults
from scanseg.interop.nnunet_architecture import architecture_of_network
from scanseg.interop.nnunet_networks import architecture_for_nnunet
from scanseg.specs import (
    CTNormalization,
    NoNormalization,
    Normalization,
    PlainUNetSpec,
    Plan,
    RescaleNormalization,
    ResidualUNetSpec,
    ZScoreNormalization,
)

SETTINGS_KEY = "scanseg"
"""Key of the settings in a configuration that nnU-Net ignores and our trainer reads."""
_SPLINES = "resample_data_or_seg_to_shape"
_NO_RESAMPLING = "no_resampling_hack"
_THRESHOLD = 3.0
_ITK_ENDINGS = (".nii.gz", ".nrrd", ".mha", ".gipl")
_PICTURE_ENDINGS = (".png", ".bmp", ".tif")
_TIFF_ENDINGS = (".tif", ".tiff")
_UNKNOWN_MM = 1.0


def make_configuration(plan: Plan, *, data_identifier: str) -> dict[str, Any]:
    """Return the configuration of nnU-Net for a plan.

    Args:
        plan: The plan.
        data_identifier: Name of the folder of preprocessed cases.

    Raises:
        InputError: nnU-Net has no such preprocessing. One message names all differences.
    """
    preprocessing, sampling, network = plan.preprocessing, plan.sampling, plan.network
    schemes = [_scheme_of(each) for each in preprocessing.normalizations]
    faults = [
        f"preprocessing.normalizations.{number}: nnU-Net has no such normalization: {each.model_dump()}"
        for number, (each, scheme) in enumerate(zip(preprocessing.normalizations, schemes, strict=True))
        if scheme is None
    ]
    if preprocessing.slice_size is not None:
        faults.append(
            "preprocessing.slice_size: nnU-Net trains on patches and has no resized slices. Export a data set, whose "
            "configuration 2d_msvm_unet has patches, or a plan of the recipe xlstm-unet-2d"
        )
    if preprocessing.neighbour_slices:
        faults.append(
            "preprocessing.neighbour_slices: nnU-Net's 2D networks see one slice. Set it to 0 and train again"
        )
    if not preprocessing.crop_to_nonzero:
        faults.append("preprocessing.crop_to_nonzero: nnU-Net always crops, got false")
    if plan.cascade is not None:
        faults.append("cascade: expected a plan of one stage, got a second stage")
    refuse_faults("the plan cannot be exported to nnU-Net", faults)
    spacing, num_axes = preprocessing.spacing, len(sampling.patch_size)
    sizes = (_UNKNOWN_MM,) * 3 if spacing is None else spacing
    is_own = isinstance(network, PlainUNetSpec | ResidualUNetSpec)
    return {
        "data_identifier": data_identifier,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": sampling.batch_size,
        "patch_size": list(sampling.patch_size),
        "median_image_size_in_voxels": list(sampling.patch_size),
        "spacing": [_UNKNOWN_MM if size is None else size for size in sizes[-num_axes:]],
        "normalization_schemes": [scheme for scheme, _ in filter(None, schemes)],
        "use_mask_for_norm": [masked for _, masked in filter(None, schemes)],
        **_resampling(plan),
        "architecture": architecture_of_network(network)
        if is_own and isinstance(network, PlainUNetSpec | ResidualUNetSpec)
        else architecture_for_nnunet(network, patch_size=sampling.patch_size),
        "batch_dice": plan.training.loss.dice_over_batch,
        SETTINGS_KEY: {
            "training": plan.training.model_dump(mode="json"),
            "foreground_fraction": sampling.foreground_fraction,
            "deep_supervision": bool(getattr(network, "deep_supervision", False)),
        },
    }


def make_plans(
    configurations: dict[str, dict[str, Any]], plan: Plan, *, dataset_name: str, plans_name: str
) -> dict[str, Any]:
    """Return the plans of nnU-Net with some configurations.

    Args:
        configurations: The configurations by name.
        plan: Plan of one of them. The others have the same data set, axis order and normalization.
        dataset_name: Name of the data set in nnU-Net, such as `Dataset004_Hippocampus`.
        plans_name: Name of the plans.

    Raises:
        UsageError: nnU-Net reads no files of this ending.
    """
    order = plan.preprocessing.axis_order
    z, y, x = plan.preprocessing.spacing or (None, _UNKNOWN_MM, _UNKNOWN_MM)
    depth = 1 if plan.num_axes == 2 else plan.sampling.patch_size[0]
    return {
        "dataset_name": dataset_name,
        "plans_name": plans_name,
        "original_median_spacing_after_transp": [z or (999.0 if plan.num_axes == 2 else _UNKNOWN_MM), y, x],
        "original_median_shape_after_transp": [depth, *plan.sampling.patch_size[-2:]],
        "image_reader_writer": _find_reader(plan),
        "transpose_forward": list(order),
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(number): _intensities(each) for number, each in enumerate(plan.preprocessing.normalizations)
        },
        "configurations": configurations,
    }


def list_notes(plan: Plan) -> tuple[str, ...]:
    """Return the differences between a plan and its configuration of nnU-Net.

    Args:
        plan: The plan.
    """
    orientation = plan.preprocessing.orientation
    if orientation in (None, "RAS") or plan.num_axes == 2:
        return ()
    return (
        f"orientation: nnU-Net does not reorient these volumes. Store images in the orientation {orientation} before "
        "nnU-Net reads them",
    )


def _scheme_of(normalization: Normalization) -> tuple[str, bool] | None:
    """Return nnU-Net's normalization and its use of the mask. `None`: nnU-Net has no such normalization."""
    match normalization:
        case ZScoreNormalization(nonzero_only=masked):
            return "ZScoreNormalization", masked
        case CTNormalization():
            return "CTNormalization", False
        case NoNormalization():
            return "NoNormalization", False
        case RescaleNormalization(lower=None, upper=None, low=0.0, high=1.0):
            return "RescaleTo01Normalization", False
        case RescaleNormalization(lower=0.0, upper=255.0, low=0.0, high=1.0):
            return "RGBTo01Normalization", False
        case _:
            return None


def _resampling(plan: Plan) -> dict[str, Any]:
    """Return the three resampling functions of a plan."""
    preprocessing = plan.preprocessing
    if preprocessing.spacing is None and plan.num_axes == 3:
        return {f"resampling_fn_{part}": _NO_RESAMPLING for part in ("data", "seg", "probabilities")} | {
            f"resampling_fn_{part}_kwargs": {} for part in ("data", "seg", "probabilities")
        }
    orders = {"data": preprocessing.image_order, "seg": preprocessing.label_order, "probabilities": 1}
    threshold = preprocessing.anisotropy_threshold
    options: dict[str, Any] = {"order_z": 0, "force_separate_z": None}
    if threshold != _THRESHOLD:
        options["separate_z_anisotropy_threshold"] = threshold
    functions: dict[str, Any] = {f"resampling_fn_{part}": _SPLINES for part in orders}
    return functions | {
        f"resampling_fn_{part}_kwargs": {"is_seg": part == "seg", "order": order, **options}
        for part, order in orders.items()
    }


def _find_reader(plan: Plan) -> str:
    """Return nnU-Net's class that reads the files of a data set.

    Raises:
        UsageError: nnU-Net reads no files of this ending.
    """
    ending, orientation = plan.dataset.file_ending.lower(), plan.preprocessing.orientation
    suffix = "WithReorient" if orientation == "RAS" else ""
    if plan.num_axes == 2 and ending in _PICTURE_ENDINGS:
        return "NaturalImage2DIO"
    if ending in _ITK_ENDINGS:
        return f"SimpleITKIO{suffix}"
    if ending == ".nii":
        return f"NibabelIO{suffix}"
    if plan.num_axes == 3 and ending in _TIFF_ENDINGS:
        return "Tiff3DIO"
    known = ", ".join(dict.fromkeys((*_ITK_ENDINGS, ".nii", *_PICTURE_ENDINGS, *_TIFF_ENDINGS)))
    raise UsageError(
        f"file ending: expected an ending of nnU-Net ({known}), got {ending} with {plan.num_axes} axes. Convert the "
        "images."
    )


def _intensities(normalization: Normalization) -> dict[str, float]:
    """Return the known intensities of a channel's foreground."""
    names: Sequence[str] = ("mean", "median", "std", "min", "max", "percentile_00_5", "percentile_99_5")
    if not isinstance(normalization, CTNormalization):
        return dict.fromkeys(names, 0.0)
    lower, upper, mean = normalization.lower, normalization.upper, normalization.mean
    values = (mean, mean, normalization.standard_deviation, lower, upper, lower, upper)
    return dict(zip(names, values, strict=True))
