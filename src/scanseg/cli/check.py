"""`scanseg check`."""

from scanseg.cli.console import print_error_lines, print_line
from scanseg.cli.options import Dataset, Workers
from scanseg.progress_display import show_progress


def check(dataset: Dataset, /, *, num_workers: Workers = None) -> None:
    """Check every case of a data set and report all faults.

    Without faults, a summary is printed: cases, channels, shapes, spacings and labels.
    """
    with show_progress(f"checking {dataset}") as progress:
        from scanseg import api

        report = api.check(dataset, num_workers=num_workers, progress=progress)
    lines = report.lines()
    num_summary = next((n for n, line in enumerate(lines) if line.startswith("warning: ")), len(lines))
    for line in lines[:num_summary]:
        print_line(line)
    print_error_lines(lines[num_summary:])
