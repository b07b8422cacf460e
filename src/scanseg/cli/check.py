"""`scanseg check`."""

from pathlib import Path

from scanseg.cli.console import say
from scanseg.cli.options import Workers
from scanseg.cli.progress import show_progress


def check(dataset: Path, /, *, num_workers: Workers = None) -> None:
    """Read every case of a raw data set and say what is wrong, or what is there.

    Args:
        dataset: Folder in nnU-Net's raw layout: dataset.json, imagesTr, labelsTr.
    """
    from scanseg import api

    with show_progress() as progress:
        report = api.check(dataset, num_workers=num_workers, progress=progress)
    for line in report.lines():
        say(line)
