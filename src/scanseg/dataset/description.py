"""Reader of `dataset.json` of nnU-Net (v1, v2) and the Decathlon.

Other keys (licence, reference ...) are for human readers and are ignored. Every key that is used is required where it
is used, so a misspelt key is an error.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scanseg.dataset.recognition import suggest_conversion
from scanseg.documents import read_json
from scanseg.errors import InputError
from scanseg.imaging import file_ending
from scanseg.messages import listed, shortened
from scanseg.specs import BACKGROUND, DatasetSpec, describe_faults

DESCRIPTION_FILE = "dataset.json"
HIGHEST_LABEL = 255
"""Highest value of a label."""
_MAX_QUOTED = 120
"""Longest quoted value, in characters."""
_MAX_FAULT = 500
"""Longest description of a fault, in characters."""
_MOST_NAME_CHARACTERS = 255
"""Longest name of a file or folder."""
_NUMBER = re.compile(r"[0-9]{1,9}")
"""A whole number as text."""


@dataclass(frozen=True)
class ListedCase:
    """A case that `dataset.json` lists."""

    name: str
    images: tuple[Path, ...]
    label_map: Path


@dataclass(frozen=True)
class Description:
    """Contents of `dataset.json`."""

    spec: DatasetSpec
    listed: tuple[ListedCase, ...]
    """Cases that the file lists. If empty, cases are found by their file names."""
    num_training: int | None
    """Number of training cases in the file, if any."""


def read_description(folder: Path) -> Description:
    """Read the `dataset.json` of a data set.

    Args:
        folder: Folder of the data set.

    Raises:
        InputError: The file cannot be read or does not describe a data set. The message lists all faults.
    """
    path = folder / DESCRIPTION_FILE
    content = _read_object(path)
    try:
        listed = _listed_cases(folder, content)
        fields = {
            "name": _name(content) or folder.resolve().name,
            "channel_names": _channel_names(content),
            "labels": _labels(content),
            "regions_class_order": content.get("regions_class_order"),
            "file_ending": content.get("file_ending") or _ending_of(listed),
            "label_colours": content.get("label_colours", {}),
        }
        num_training = _num_training(content)
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: unknown form ({shortened(str(error), _MAX_FAULT)}).") from error
    missing = [name for name, value in fields.items() if value is None and name != "regions_class_order"]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}. Add them as in nnU-Net's format.")
    try:
        return Description(DatasetSpec.model_validate(fields), listed, num_training)
    except ValidationError as error:
        raise InputError(f"{path}: {describe_faults(error, content=fields)}") from error


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: The file is missing, no JSON, or no object.
    """
    if not path.exists():
        advice = suggest_conversion(path.parent) or "A raw data set needs this file."
        raise InputError(f"{path}: cannot be read (No such file). {advice}")
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {shortened(json.dumps(content))}.")
    return content


def _name(content: dict[str, Any]) -> str | None:
    """Return the name of the data set as text.

    Some files hold a number.
    """
    name = content.get("name")
    if isinstance(name, dict | list):
        raise ValueError(f"name: expected a text, got {shortened(json.dumps(name))}")
    return str(name) if name else None


def _num_training(content: dict[str, Any]) -> int | None:
    """Return the number of training cases, which some files hold as text."""
    number = content.get("numTraining")
    if number is not None and not _NUMBER.fullmatch(str(number)):
        raise ValueError(f"numTraining: expected a number of cases, got {shortened(json.dumps(number))}")
    return None if number is None else int(number)


def _channel_names(content: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the channel names from `channel_names` or the older `modality`."""
    names = content.get("channel_names", content.get("modality"))
    if names is None or isinstance(names, list):
        return names if names is None else tuple(str(name) for name in names)
    if not isinstance(names, dict):
        raise ValueError(
            f'channel_names: expected names by number, such as {{"0": "CT"}}, got {shortened(json.dumps(names))}'
        )
    unnumbered = [key for key in names if not _NUMBER.fullmatch(key)]
    if unnumbered:
        swapped = {str(value): key for key, value in names.items()}
        is_swapped = all(map(_NUMBER.fullmatch, swapped))
        advice = "It is the wrong way round. Write" if is_swapped else "Write for example"
        right = shortened(json.dumps(swapped if is_swapped else {"0": unnumbered[0]}), _MAX_QUOTED)
        raise ValueError(
            f"channel_names: expected whole numbers to names, got {shortened(json.dumps(names), _MAX_QUOTED)}. "
            f"{advice} {right}"
        )
    numbered = {int(number): str(name) for number, name in names.items()}
    if sorted(numbered) != list(range(len(numbered))):
        raise ValueError(f"channel_names: expected consecutive numbers from 0, got {sorted(numbered)}")
    return tuple(numbered[number] for number in range(len(numbered)))


def _labels(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return the label values by name. The Decathlon has names by value."""
    labels = content.get("labels")
    if not labels:
        return None
    if not isinstance(labels, dict):
        found = shortened(json.dumps(labels))
        raise ValueError(
            f'labels: expected values by name, such as {{"background": 0, "liver": 1}}, got {found}'
        )
    if all(isinstance(name, str) for name in labels.values()) and all(map(_NUMBER.fullmatch, labels)):
        names = [BACKGROUND if int(value) == 0 else name for value, name in labels.items()]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"labels: the names {', '.join(repeated)} occur twice")
        return {name: int(value) for name, value in zip(names, labels, strict=True)}
    invalid = [f"{name} {json.dumps(value)}" for name, value in labels.items() if not _is_whole(value)]
    if invalid:
        raise ValueError(
            f"labels: expected whole numbers, or lists of them for regions, got {', '.join(invalid)}"
        )
    outside = [
        f"labels.{name}: expected 0 to {HIGHEST_LABEL}, got {json.dumps(value)}"
        for name, value in labels.items()
        if not all(
            0 <= int(part) <= HIGHEST_LABEL for part in (value if isinstance(value, list) else [value])
        )
    ]
    if outside:
        raise ValueError(listed(outside))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in labels.items()}


def _is_whole(value: object) -> bool:
    """Return whether a label is a whole number or a list.

    Some files hold numbers as text.
    """
    if isinstance(value, list):
        return bool(value) and all(_is_whole(part) and not isinstance(part, list) for part in value)
    return str(value).lstrip("-").isdecimal() or (isinstance(value, float) and value.is_integer())


def _listed_cases(folder: Path, content: dict[str, Any]) -> tuple[ListedCase, ...]:
    """Return the cases in nnU-Net's `dataset`, or in the older `training`."""
    if isinstance(content.get("dataset"), dict):
        for name, entry in content["dataset"].items():
            _check_entry(f"dataset.{name}", entry, images="images")
        return tuple(
            ListedCase(name, tuple(folder / image for image in entry["images"]), folder / entry["label"])
            for name, entry in sorted(content["dataset"].items())
        )
    if "channel_names" in content or not isinstance(content.get("training"), list):
        return ()
    num_channels = len(_channel_names(content) or ())
    for number, entry in enumerate(content["training"]):
        _check_entry(f"training.{number}", entry, images="image")
    cases = [_training_entry(folder, entry, num_channels) for entry in content["training"]]
    return tuple(sorted(cases, key=lambda case: case.name))


def _check_entry(where: str, entry: object, *, images: str) -> None:
    """Check that an entry names its files.

    Args:
        where: Path of the entry in the file.
        entry: The entry.
        images: Key of the image or the images.

    Raises:
        ValueError: A file is missing.
    """
    image, label = (entry.get(images), entry.get("label")) if isinstance(entry, dict) else (None, None)
    files = image if isinstance(image, list) else [image]
    is_list = isinstance(image, list) == (images == "images")
    if not is_list or not files or not all(map(_is_path, (*files, label))):
        raise ValueError(
            f'{shortened(where)}: expected the files "{images}" and "label", got {shortened(json.dumps(entry))}'
        )


def _is_path(value: object) -> bool:
    """Return whether a value is a path of valid file names."""
    return isinstance(value, str) and value != "" and max(map(len, value.split("/"))) <= _MOST_NAME_CHARACTERS


def _training_entry(folder: Path, entry: dict[str, str], num_channels: int) -> ListedCase:
    """Return a case of the older form.

    Its images are the file named, or nnU-Net v1's files `CASE_0000`, `CASE_0001` ... of that name.
    """
    image, label_map = folder / entry["image"], folder / entry["label"]
    ending = file_ending(image)
    stem = image.name[: -len(ending)]
    channels = tuple(image.with_name(f"{stem}_{index:04d}{ending}") for index in range(num_channels))
    images = (image,) if image.is_file() or not any(path.is_file() for path in channels) else channels
    return ListedCase(label_map.name[: -len(file_ending(label_map))], images, label_map)


def _ending_of(listed: tuple[ListedCase, ...]) -> str | None:
    """Return the file ending of the listed images, if any."""
    return file_ending(listed[0].images[0]) if listed else None
