"""Label maps of validation cases as image files, for viewers."""

from collections.abc import Sequence

from scanseg.dataset import RawDataset
from scanseg.errors import InputError
from scanseg.messages import listed
from scanseg.models import ModelFolder
from scanseg.preprocessing import Store, read_array
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext

_TASK = "writing label maps"


def write_validation_files(
    folder: ModelFolder, raw: RawDataset | None, store: Store, cases: Sequence[str], *, context: RunContext
) -> None:
    """Write kept label maps in the format of the data set.

    Each file has the grid of its image. Cases without their image are reported as a warning.

    Args:
        folder: The model folder with kept label maps.
        raw: The raw data set. `None`: it is not on this machine.
        store: Store of the cases.
        cases: Names of the validation cases.
        context: Progress.
    """
    from scanseg.imaging import (  # a machine that only trains may lack image libraries
        read_image,
        write_label_map,
    )

    sources = {} if raw is None else {case.name: case for case in raw.cases}
    missing: list[str] = []
    for number, name in enumerate(cases):
        source = sources.get(name)
        if source is None or source.label_map is None:
            missing.append(name)
            continue
        shape = store.case(name).geometry.source_shape
        label_map = read_array(folder.prediction_path(name), shape=shape)
        try:
            image = read_image(source.images[0])
            write_label_map(
                folder.prediction_path(name).parent / source.label_map.name, label_map, like=image
            )
        except InputError:
            missing.append(name)
        context.progress(ProgressUpdate(_TASK, number + 1, len(cases), name))
    if missing:
        context.report_warnings(
            [
                f"{folder.path}: without their images, the label maps of {listed(missing)} are kept as arrays "
                f"(.b2nd) only"
            ]
        )
