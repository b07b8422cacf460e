"""`scanseg calibrate`."""

from pathlib import Path
from typing import Annotated

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import COMMON, Device
from scanseg.messages import counted
from scanseg.progress_display import show_progress


def calibrate(model: Path, /, *, overwrite: Annotated[bool, COMMON] = False, device: Device = "auto") -> None:
    """Fit the probabilities of a model to its validation cases.

    The temperatures are stored in the model. Predictions use them for probabilities and uncertainty. Label maps do not
    change.

    Args:
        model: Folder of a model, or of a cross-validation of one recipe, with its preprocessed cases.
        overwrite: Replace an earlier calibration.
    """
    with show_progress(f"calibrating {model}") as progress:
        from scanseg import api

        record = api.calibrate(model, device=device, overwrite=overwrite, progress=progress)
    rows = zip(record.outputs, record.temperatures, strict=True)
    show_table(("output", "temperature"), [(name, f"{value:.3f}") for name, value in rows])
    print_line(
        f"expected calibration error: {record.error_before:.4f} before, {record.error_after:.4f} after, on "
        f"{counted(record.num_cases, 'validation case')}"
    )
