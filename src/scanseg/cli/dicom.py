"""`scanseg dicom`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from scanseg.cli.console import print_error_lines, print_line, show_table
from scanseg.cli.options import COMMON
from scanseg.errors import refuse_faults

if TYPE_CHECKING:
    from scanseg.imaging import SeriesSummary


def list_series(
    source: Path, /, *, as_json: Annotated[bool, COMMON, Parameter(name="--json")] = False
) -> None:
    """List the series of a folder or zip file.

    The reason is printed below the table if a series is no volume. Exit code 1: files cannot be read.

    Args:
        source: Folder with its subfolders, or zip file.
        as_json: Print one JSON document instead of a table.
    """
    from dataclasses import asdict

    from scanseg import api

    found = api.list_series(source)
    if as_json:
        print_line(json.dumps(asdict(found), indent=2, default=str))
    else:
        show_table(
            ("series", "description", "files", "size (z, y, x)", "spacing (mm)", "UID"),
            map(_row_of, found.series),
            align="left",
        )
        print_error_lines([f"left out: {kind}" for kind in found.others])
        for series in found.series:
            for line in (*(() if series.fault is None else (series.fault,)), *series.warnings):
                print_line(line)
    refuse_faults(source, found.faults)


def _row_of(series: "SeriesSummary") -> tuple[str, ...]:
    """Return the texts of a row of the table."""
    return (
        f"{series.modality} {series.number}".strip(),
        series.description,
        str(series.num_files),
        "-" if series.shape is None else " x ".join(map(str, series.shape)),
        "-" if series.spacing is None else " x ".join(f"{size:.4g}" for size in series.spacing),
        series.uid,
    )
