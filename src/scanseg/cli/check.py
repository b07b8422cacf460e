"""`scanseg check`."""

from scanseg.cli.console import print_error_lines, print_line, suggest_command
from scanseg.cli.options import Dataset, Workers
from scanseg.progress_display import show_progress


def check(dataset: Dataset, /, *, num_workers: Workers = None) -> None:
    """Check every case of a data set and report all faults.

    Without faults, a summary is printed: cases, channels, shapes, spacings and labels. The command of a first training
    on this machine follows.
    """
    with show_progress(f"checking {dataset}") as progress:
        from scanseg import api

        report = api.check(dataset, num_workers=num_workers, progress=progress)
    lines = report.lines()
    num_summary = next((n for n, line in enumerate(lines) if line.startswith("warning: ")), len(lines))
    for line in lines[:num_summary]:
        print_line(line)
    print_error_lines(lines[num_summary:])
    suggest_command("to train", "train", dataset, "-o", "MODEL", *_first_options())


def _first_options() -> tuple[str, ...]:
    """Return the options of a first training on this machine.

    A CPU gets a small network and two minutes. The default recipe would take days on it.
    """
    from scanseg.runtime import choose_device

    is_cpu = choose_device("auto").type == "cpu"
    return ("--recipe", "xlstm-unet-fast", "--max-minutes", "2") if is_cpu else ()
