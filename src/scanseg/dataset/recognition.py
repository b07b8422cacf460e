"""Recognition of folders that are not converted yet."""

import shlex
from pathlib import Path

from scanseg.dataset.folder_cases import FolderCases, find_folder_cases
from scanseg.dataset.folder_names import IMAGE_FOLDERS, is_image_file
from scanseg.imaging import DECODERS, MEDICAL_DECODERS, can_read_dicom, dicom_advice, file_ending, find_dicom
from scanseg.messages import counted


def suggest_conversion(folder: Path) -> str | None:
    """Describe a folder without `dataset.json`, and name the command that converts it.

    Only names of files are read.

    Args:
        folder: Folder that was given as a data set.

    Returns:
        Two lines: the layout, and the command. `None`: the layout is unknown. A folder of images alone gets a command
        with the word LABELS for the folder of label maps.
    """
    if not folder.is_dir():
        return None
    if (folder / "instances").is_dir() and (folder / "images").is_dir():
        return _with_command("images and instance maps", folder, _instance_converter(folder / "images"))
    if _has_instance_masks(folder):
        return _with_command("one folder per case, with one mask per instance", folder, "dsb2018")
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        found = find_folder_cases(place)
        if found is not None and (found.labelled or found.faults):
            return _describe(found, place)
    dicom = find_dicom(sorted(path for path in folder.iterdir() if not path.name.startswith(".")))
    if dicom:
        return _describe_dicom(folder)
    if any(map(is_image_file, folder.iterdir())):
        words = ["scanseg", "data", "convert", "folder", str(folder), "LABELS", "-o", _output_of(folder)]
        return f"The folder has images, but no label maps. Name their folder:\n  {shlex.join(words)}"
    return None


def _describe_dicom(folder: Path) -> str:
    """Return the command for a folder of DICOM files without label maps."""
    if not can_read_dicom():
        return f"The folder holds DICOM files. {dicom_advice()}"
    command = shlex.join(["scanseg", "dicom", "list", str(folder)])
    return (
        f"The folder has DICOM files, but no label maps. Check its series, and add label maps:\n  {command}"
    )


def _describe(found: FolderCases, folder: Path) -> str:
    """Return the layout and the command of a folder."""
    num_cases = len(found.cases) // max(len(found.channels), 1)
    layout = f"{found.layout} ({counted(num_cases, 'case')})" if num_cases else found.layout
    more = ["--channels", ",".join(found.channels)] if found.channels else []
    if found.faults and not found.channels:
        more = ["--dry-run"]
        layout += f" and {counted(len(found.faults), 'fault')} in their names, which the command lists"
    return _with_command(layout, folder, "folder", *more)


def _with_command(layout: str, folder: Path, converter: str, *more: str) -> str:
    """Return the layout and the command on two lines."""
    words = ["scanseg", "data", "convert", converter, str(folder), "-o", _output_of(folder), *more]
    return f"The folder looks like this layout: {layout}. Convert it, and use the new folder:\n  {shlex.join(words)}"


def _output_of(folder: Path) -> str:
    """Return a name for the converted data set."""
    return f"{folder.resolve().name}-dataset"


def _instance_converter(images: Path) -> str:
    """Return the name of the converter for images with instance maps."""
    decoders = {DECODERS[file_ending(path)] for path in images.iterdir() if is_image_file(path)}
    return "instances-3d" if decoders & set(MEDICAL_DECODERS) else "dsb2018"


def _has_instance_masks(folder: Path) -> bool:
    """Return whether a folder has the layout of the Data Science Bowl."""
    if any(path.name.lower() in IMAGE_FOLDERS for path in folder.iterdir()):
        return False
    return any(
        (path / "images" / f"{path.name}.png").is_file() and (path / "masks").is_dir()
        for path in folder.iterdir()
    )
