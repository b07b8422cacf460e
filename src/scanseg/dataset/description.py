"""Read `dataset.json` in the form of nnU-Net (v1 and v2) or of the Medical Segmentation Decathlon.

Keys other than those read here (licence, reference ...) describe the data set for people and are passed over;
every key that matters is required where it matters, so a misspelt one is noticed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scanseg.errors import InputError
from scanseg.imaging import file_ending
from scanseg.specs import BACKGROUND, DatasetSpec, describe_faults

DESCRIPTION_FILE = "dataset.json"


@dataclass(frozen=True)
class ListedCase:
    """A case as `dataset.json` lists it."""

    name: str
    images: tuple[Path, ...]
    label_map: Path


@dataclass(frozen=True)
class Description:
    """What `dataset.json` says."""

    spec: DatasetSpec
    listed: tuple[ListedCase, ...]
    """The cases where the file lists them itself; else they are found by their names."""
    num_training: int | None
    """How many training cases it says there are, if it does."""


def read_description(folder: Path) -> Description:
    """Read what a data set says about itself.

    Args:
        folder: Folder of the data set.

    Raises:
        InputError: The file cannot be read or does not describe a data set; with all faults.
    """
    path = folder / DESCRIPTION_FILE
    content = _read_json(path)
    try:
        listed = _listed_cases(folder, content)
        fields = {
            "name": str(content.get("name") or folder.resolve().name),
            "channel_names": _channel_names(content),
            "labels": _labels(content),
            "regions_class_order": content.get("regions_class_order"),
            "file_ending": content.get("file_ending") or _ending_of(listed),
        }
        num_training = _num_training(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not in a known form ({error}).") from error
    missing = [name for name, value in fields.items() if value is None and name != "regions_class_order"]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; add as in nnU-Net's format.")
    try:
        return Description(DatasetSpec.model_validate(fields), listed, num_training)
    except ValidationError as error:
        raise InputError(f"{path}: {describe_faults(error, content=fields)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text (byte {error.start} is {error.object[error.start]:#x}); save it as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); a raw data set has this file."
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object.")
    return content


def _num_training(content: dict[str, Any]) -> int | None:
    """The number of training cases; some write it as text."""
    number = content.get("numTraining")
    if number is not None and not str(number).isdecimal():
        raise ValueError(f"numTraining is {json.dumps(number)}, not a number of cases")
    return None if number is None else int(number)


def _channel_names(content: dict[str, Any]) -> tuple[str, ...] | None:
    """Channel names in their order, from `channel_names` or the older `modality`."""
    names = content.get("channel_names", content.get("modality"))
    if names is None or isinstance(names, list):
        return names if names is None else tuple(str(name) for name in names)
    if not isinstance(names, dict):
        raise ValueError(f'channel_names is {json.dumps(names)}, not numbers to names such as {{"0": "CT"}}')
    numbered = {int(number): str(name) for number, name in names.items()}
    if sorted(numbered) != list(range(len(numbered))):
        raise ValueError(f"channel_names are numbered {sorted(numbered)}, not from 0 on")
    return tuple(numbered[number] for number in range(len(numbered)))


def _labels(content: dict[str, Any]) -> dict[str, Any] | None:
    """Labels as name to value; the Decathlon has value to name."""
    labels = content.get("labels")
    if not labels:
        return None
    if not isinstance(labels, dict):
        raise ValueError(
            f'labels is {json.dumps(labels)}, not names to values such as {{"background": 0, "liver": 1}}'
        )
    if all(isinstance(name, str) for name in labels.values()) and all(key.isdigit() for key in labels):
        names = [BACKGROUND if int(value) == 0 else name for value, name in labels.items()]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"labels {', '.join(repeated)} are named twice")
        return {name: int(value) for name, value in zip(names, labels, strict=True)}
    strange = [f"{name} is {json.dumps(value)}" for name, value in labels.items() if not _is_whole(value)]
    if strange:
        raise ValueError(f"labels are whole numbers, or lists of them for regions, but {', '.join(strange)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in labels.items()}


def _is_whole(value: object) -> bool:
    """Whether a label is a whole number or a list of them; some write numbers as text."""
    if isinstance(value, list):
        return bool(value) and all(_is_whole(part) and not isinstance(part, list) for part in value)
    return str(value).lstrip("-").isdecimal() or (isinstance(value, float) and value.is_integer())


def _listed_cases(folder: Path, content: dict[str, Any]) -> tuple[ListedCase, ...]:
    """Cases from nnU-Net's `dataset` or, in the older form, from `training`."""
    if isinstance(content.get("dataset"), dict):
        return tuple(
            ListedCase(name, tuple(folder / image for image in entry["images"]), folder / entry["label"])
            for name, entry in sorted(content["dataset"].items())
        )
    if "channel_names" in content or not isinstance(content.get("training"), list):
        return ()
    num_channels = len(_channel_names(content) or ())
    cases = [_training_entry(folder, entry, num_channels) for entry in content["training"]]
    return tuple(sorted(cases, key=lambda case: case.name))


def _training_entry(folder: Path, entry: dict[str, str], num_channels: int) -> ListedCase:
    """A pair of the older form: the image named, or nnU-Net v1's files `CASE_0000` ... behind that name."""
    image, label_map = folder / entry["image"], folder / entry["label"]
    ending = file_ending(image)
    stem = image.name[: -len(ending)]
    channels = tuple(image.with_name(f"{stem}_{index:04d}{ending}") for index in range(num_channels))
    images = (image,) if image.is_file() or not any(path.is_file() for path in channels) else channels
    return ListedCase(label_map.name[: -len(file_ending(label_map))], images, label_map)


def _ending_of(listed: tuple[ListedCase, ...]) -> str | None:
    """The ending of the listed images, if they are listed."""
    return file_ending(listed[0].images[0]) if listed else None
