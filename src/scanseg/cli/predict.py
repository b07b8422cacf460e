"""`scanseg predict`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_colours, print_line, show_table, suggest_command
from scanseg.cli.options import (
    ADVANCED,
    COMMON,
    HARDWARE,
    Device,
    Engine,
    OutputFolder,
    OutputFormat,
    Precision,
    RayAddress,
    SlurmOptions,
    split_names,
)
from scanseg.cli.remote import predict_remotely, read_token
from scanseg.errors import UsageError
from scanseg.messages import counted, format_duration, listed
from scanseg.progress_display import show_progress

if TYPE_CHECKING:
    from scanseg.specs import DatasetSpec, PredictionRecord


def predict(
    model: str,
    /,
    *inputs: Annotated[Path, Parameter(name="INPUT")],
    output: OutputFolder,
    output_format: Annotated[OutputFormat | None, COMMON, Parameter(name="--format")] = None,
    overwrite: Annotated[bool, COMMON] = False,
    skip_existing: Annotated[bool, COMMON] = False,
    mirror: Annotated[bool | None, COMMON, Parameter(negative="--no-mirror")] = None,
    pictures: Annotated[bool, COMMON] = False,
    device: Device = "auto",
    devices: Annotated[str, HARDWARE] = "",
    on: Engine = None,
    ray_address: RayAddress = None,
    slurm_options: SlurmOptions = "",
    precision: Annotated[Precision | None, HARDWARE] = None,
    runtime: Annotated[Literal["onnxruntime", "openvino"] | None, HARDWARE] = None,
    weights: Annotated[Literal["exported", "last", "best"], ADVANCED] = "exported",
    probabilities: Annotated[bool, ADVANCED] = False,
    uncertainty: Annotated[bool, ADVANCED] = False,
    series: Annotated[tuple[str, ...], ADVANCED] = (),
    segment_codes: Annotated[Path | None, ADVANCED] = None,
    server: Annotated[str | None, ADVANCED] = None,
    token_file: Annotated[Path | None, ADVANCED] = None,
) -> None:
    """Segment images with a trained model.

    Args:
        model: Folder of a model from `scanseg train`, `scanseg crossval` or `scanseg export onnx`, or the name or
            address of a model (`scanseg models`).
        inputs: Folder of images named as for training (`CASE_0000.nii.gz`), one image, or the folder or zip file of
            DICOM series. Several may be given.
        output: Folder of the label maps. Each has the grid of its image.
        output_format: Format of the label maps: an ending, or `dicom-seg` for DICOM Segmentations of DICOM series.
            Defaults to the format of the image, and to `nii.gz` for DICOM series.
        overwrite: Replace the files of an earlier prediction.
        skip_existing: Skip images that the same model has already segmented in the output folder.
        mirror: Average over mirrored images. Slower by the number of flips, and often slightly better. Defaults to
            `inference.mirror` of the plan.
        pictures: Also write a picture of each image with its label map, as `pictures/CASE.png`.
        devices: Devices separated by commas, such as `cuda:0,cuda:1`. Each loads the model once. The next image goes
            to the first free one. Defaults to one device.
        precision: Number format of matrix products. `auto` is bfloat16 on a GPU that supports it, otherwise float32.
            Defaults to the precision of the training.
        runtime: Library that computes an exported model. Defaults to `onnxruntime`.
        weights: Weights to load. `exported`: chosen by the training. `last`: from the end of the training. `best`: with
            the highest Dice on validation patches.
        probabilities: Also write the probabilities of the labels.
        uncertainty: Also write two maps from 0 to 1. One is the entropy of the probabilities. The other is the
            disagreement of mirrored images and of the networks of a cross-validation.
        series: UID of a DICOM series to segment, or its beginning if it is unique (`scanseg dicom list`). Repeat for
            more. Defaults to all series.
        segment_codes: JSON file with the codes of the segments of `--format dicom-seg`. Defaults to the code of tissue.
        server: Address of a server (`scanseg serve`), which segments the images with its own device and precision.
            MODEL is then a name of the server, and PyTorch is not needed here. Defaults to this machine.
        token_file: File with the token of the server. Defaults to the environment variable SCANSEG_TOKEN.
    """
    if not inputs:
        raise UsageError("expected at least one image or folder of images after MODEL, got none")
    if server is not None:
        local = {
            "--skip-existing": skip_existing,
            "--device": device != "auto",
            "--devices": bool(devices),
            "--on": on is not None,
            "--slurm-options": bool(slurm_options),
            "--pictures": pictures,
            "--precision": precision is not None,
            "--runtime": runtime is not None,
            "--weights": weights != "exported",
            "--probabilities": probabilities,
            "--series": bool(series),
            "--segment-codes": segment_codes is not None,
        }
        given = [name for name, is_given in local.items() if is_given]
        if given:
            raise UsageError(
                f"--server: expected no options of this machine, got {listed(given)}. Leave them out."
            )
        predict_remotely(
            server,
            model,
            inputs,
            output,
            token=read_token(token_file),
            output_format=output_format,
            overwrite=overwrite,
            mirror=mirror,
            uncertainty=uncertainty,
        )
        return
    if token_file is not None:
        raise UsageError("--token-file: expected --server, got none. Leave it out.")

    _check_devices(
        device=device, devices=devices, on=on, ray_address=ray_address, slurm_options=slurm_options
    )
    with show_progress(f"segmenting {listed([str(path) for path in inputs])} with {model}") as progress:
        from scanseg import api
        from scanseg.cohort import split_options
        from scanseg.specs import SegmentCodes

        codes = None if segment_codes is None else SegmentCodes.read(segment_codes)
        loading: dict[str, Any] = {"weights": weights, "precision": precision, "runtime": runtime}
        predictor = None if devices or on is not None else api.load(model, device=device, **loading)
        cluster: dict[str, Any] = {
            "devices": split_names(devices),
            "on": on,
            "ray_address": ray_address,
            "slurm_options": split_options(slurm_options),
        }
        predict_inputs: Callable[..., PredictionRecord] = (
            partial(api.predict_cohort, model, **cluster, **loading)
            if predictor is None
            else predictor.predict_folder
        )
        record = predict_inputs(
            inputs,
            output,
            mirror=mirror,
            probabilities=probabilities,
            uncertainty=uncertainty,
            overwrite=overwrite,
            skip_existing=skip_existing,
            format=output_format,
            series=series,
            segment_codes=codes,
            pictures=pictures,
            progress=progress,
        )
        case_warnings = [
            f"case {case.case}: {case.warning}" for case in record.cases if case.warning is not None
        ]
        progress.print_new((*record.warnings, *case_warnings))
    show_table(
        ("case", "label map", "seconds"),
        [
            (case.case, case.label_map or "-", "skipped" if case.skipped else f"{case.seconds:.1f}")
            for case in record.cases
        ],
    )
    print_line(
        f"{output}: {counted(len(record.cases), 'label map')} in {format_duration(record.seconds)} on {record.device}"
    )
    print_colours(output)
    if pictures:
        print_line(f"images with their label maps: {output / 'pictures'}")
    dataset = _read_dataset(output) if predictor is None else predictor.plan.dataset
    if dataset.foreground.keys() == {"interior", "boundary"}:
        instances = output.with_name(f"{output.name}-instances")
        suggest_command("to number the instances", "data", "instances", output, "-o", instances)


def _check_devices(
    *, device: str, devices: str, on: str | None, ray_address: str | None, slurm_options: str
) -> None:
    """Check that the options of devices fit together.

    Raises:
        UsageError: Options exclude each other.
    """
    if devices and device != "auto":
        raise UsageError("--device and --devices exclude each other. Leave one out.")
    if on is not None and (devices or device != "auto"):
        raise UsageError("--on chooses the devices of its cluster. Leave out --device and --devices.")
    if slurm_options and on != "slurm":
        raise UsageError(f"--slurm-options {slurm_options}: expected --on slurm. Add it.")
    if ray_address is not None and on is None:
        raise UsageError(f"--ray-address {ray_address}: expected --on ray, got none. Add --on ray.")


def _read_dataset(output: Path) -> "DatasetSpec":
    """Read the description of label maps."""
    from scanseg.dataset import DESCRIPTION_FILE
    from scanseg.specs import DatasetSpec

    return DatasetSpec.read(output / DESCRIPTION_FILE)
