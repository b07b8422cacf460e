"""DICOM series in the folders of cases."""

from pathlib import Path

from scanseg.dataset.folder_names import is_image_file
from scanseg.errors import InputError
from scanseg.imaging import can_read_dicom, find_dicom, list_series
from scanseg.messages import counted, listed


def find_case_series(folder: Path) -> Path | str | None:
    """Find the DICOM series in the folder of a case.

    Files of other formats, such as label maps, are left out. So are localizers.

    Args:
        folder: Folder of the case.

    Returns:
        Path of the series, or the fault of the case. `None`: the folder holds no DICOM files, or pydicom is missing.
    """
    if not can_read_dicom():
        return None
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not find_dicom([path for path in inside if path.is_dir() or not is_image_file(path)]):
        return None
    try:
        found = list_series(folder)
    except InputError as error:
        return f"case {folder.name}: {error}"
    if found.faults:
        return f"case {folder.name}: {found.faults[0]}"
    series = [each for each in found.series if not each.is_localizer]
    if len(series) == 1:
        return series[0].path
    names = f" ({listed([each.uid for each in series])})" if series else ""
    return (
        f"case {folder.name}: expected one DICOM series, got {counted(len(series), 'series', 'series')}{names}. Keep "
        "one series in each folder."
    )
