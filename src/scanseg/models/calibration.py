"""Calibrations of models: temperatures of the outputs, which belong to weights."""

from pathlib import Path

from scanseg.errors import InputError
from scanseg.files import write_text
from scanseg.models.folder import ModelFolder
from scanseg.specs import CalibrationRecord, FileStamp, Plan

_FILE = "calibration.json"


def calibration_path(model: Path) -> Path:
    """Return the file of the calibration of a model.

    Args:
        model: Model folder, or folder of an ensemble.
    """
    return model / _FILE


def stamp_weights(model: Path, folders: list[Path]) -> dict[str, FileStamp]:
    """Describe the weights of a model, by their path in its folder.

    Args:
        model: Model folder, or folder of an ensemble.
        folders: Folders of its single models.
    """
    paths = [ModelFolder.open(folder).weights_path() for folder in folders]
    return {path.relative_to(model).as_posix(): FileStamp.of(path) for path in paths}


def read_temperatures(model: Path, plan: Plan) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Read the temperatures of a model.

    Args:
        model: Model folder, or folder of an ensemble.
        plan: Its plan.

    Returns:
        Temperature of each output, or `None` without a current calibration. And a warning if the calibration belongs
        to other weights.

    Raises:
        InputError: The calibration cannot be read, or has other outputs than the plan.
    """
    path = calibration_path(model)
    if not path.is_file():
        return None, ()
    record = CalibrationRecord.read(path)
    if len(record.temperatures) != plan.dataset.num_outputs:
        raise InputError(
            f"{path}: expected {plan.dataset.num_outputs} temperatures, one for each output of the plan, got "
            f"{len(record.temperatures)}. Calibrate again by scanseg calibrate {model} --overwrite."
        )
    if not all(stamp.matches(model / name) for name, stamp in record.weights.items()):
        return None, (
            f"{path}: the calibration belongs to other weights and is not applied. Calibrate again by scanseg "
            f"calibrate {model} --overwrite",
        )
    return record.temperatures, ()


def copy_calibration(model: Path, target: Path, folders: list[Path]) -> None:
    """Copy a calibration to a copy of the model.

    The weights of the copy may have another type.

    Args:
        model: Model folder, or folder of an ensemble. Without a calibration, nothing is copied.
        target: Folder of the copy.
        folders: Folders of the single models of the copy.
    """
    path = calibration_path(model)
    if not path.is_file():
        return
    record = CalibrationRecord.read(path)
    if all(stamp.matches(model / name) for name, stamp in record.weights.items()):
        stamped = record.model_copy(update={"weights": stamp_weights(target, folders)})
        write_text(calibration_path(target), stamped.to_json())
