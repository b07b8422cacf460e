"""Make `docs/performance.md` from records.

Usage: python -m benchmarks.page RECORD.json ... -o docs/performance.md

Every number of the page comes from the records, from `published.json` (numbers of others, and targets) or from
`hardware.json`. `analysis.json` explains shortfalls. If several records have a row, the last one counts. Records of
`growth`, `step_profile`, `fp16_run` and `memory_prediction` have their own sections. Without records the page lists
the rows to measure.
"""

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.other_records import kind_of, sections, table
from benchmarks.roofline import HARDWARE
from benchmarks.rows import PageRow, read_record, read_rows, read_sources
from benchmarks.shortfalls import list_rows_without_time, list_shortfalls

PAGE = Path("docs/performance.md")
_WIDTH = 118
"""Longest line of the page, tables excepted."""
SECTIONS = (
    ("SS2D core: projections, scan, merge, norm (batch 32)", ("ss2d-core/",), None),
    ("mLSTM cell: batch x heads x tokens x features of a head", ("mlstm/",), "cuda"),
    ("Training steps: forward, loss, backward", ("msvm-unet/", "xlstm-unet-"), "step"),
    ("Inference", ("msvm-unet/", "xlstm-unet-"), "inference"),
    ("Loss: Dice and cross-entropy of one stage", ("loss/",), "cuda"),
    ("CPU", ("",), "cpu"),
)
HEADER = (
    "row",
    "launched ms (20 to 80 %)",
    "replayed ms",
    "peak GiB",
    "published ms: launched, replayed (GiB)",
    "best public ms: launched, replayed",
    "target ms: launched, replayed (GiB)",
    "floor ms",
    "ours / floor",
    "best other / ours: launched, replayed",
)


def make_page(records: Sequence[Path], *, page: Path) -> str:
    """Return the page.

    Args:
        records: Files of records, the most recent last.
        page: Path of the page, from which its links lead.
    """
    kinds = [(kind_of(path), path) for path in records]
    rows = read_rows([path for kind, path in kinds if kind == "entries"])
    others = [(kind, read_record(path)) for kind, path in kinds if kind != "entries"]
    lines = [
        "# Performance",
        "",
        "`python -m benchmarks.page` makes this page from the records below. Do not edit it.",
        "",
        "## Records",
        "",
        *_records(records, page),
        "",
        "## How to read the numbers",
        "",
        *_reading([row.device for row in rows]),
    ]
    for title, prefixes, kind in SECTIONS:
        chosen = [row for row in rows if row.entry.startswith(prefixes) and _is_of(row, kind)]
        if chosen:
            lines += ["", f"## {title}", "", *table(HEADER, (_cells(row) for row in chosen))]
    lines += ["", "## Baselines at the same inputs", "", *_baselines(rows)]
    lines += sections(others)
    lines += ["", "## Shortfalls", "", *list_shortfalls(rows)]
    lines += ["", "## Rows without a time", "", *list_rows_without_time(rows)]
    return "".join(f"{line}\n" for long in lines for line in _wrapped(long))


def _is_of(row: PageRow, kind: str | None) -> bool:
    """Whether a row belongs to a section, by device or call."""
    if kind in ("cuda", "cpu"):
        return row.device_type == kind
    return kind is None or (row.device_type == "cuda" and row.call.startswith(kind))


def _records(records: Sequence[Path], page: Path) -> Iterator[str]:
    """List the records with their machine and code."""
    if not records:
        yield "None yet."
    for path in records:
        record = read_record(path)
        link = Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix()
        versions = record["versions"]
        words = [f"torch {versions['torch']}", f"triton {versions['triton']}", f"commit `{record['commit']}`"]
        verified = [row for row in record.get("golden", ()) if row["passed"]]
        if record.get("golden"):
            words.append(
                f"{len(verified)} of {len(record['golden'])} golden records verified in the same run"
            )
        yield (
            f"- Record: [{path.name}]({link}): {record['device']}, {record['threads']} threads, {record['date']}, "
            f"{', '.join(words)}, source digest `{record['source_digest']}`."
        )


def _reading(devices: Sequence[str]) -> Iterator[str]:
    """Explain the numbers measured on these devices."""
    source, targets = read_sources()
    yield (
        "Times are medians of single calls after warm-up, measured by the GPU's own events. Before, the same run "
        "compared every entry of ours with float64."
    )
    yield ""
    yield (
        "*Launched* calls launch kernel by kernel from Python. *Replayed* calls are one CUDA graph, as in `scanseg "
        "train` and `scanseg predict`. Peak memory is measured for the launched call, including weights and inputs. "
        "Operators start with an empty cache."
    )
    yield ""
    yield (
        "Only like is compared with like, on the same device: launched with launched, replayed with replayed. A dash "
        "stands for a number that was not measured. No compiled network of others was measured, so none is compared. "
        "The floor bounds both ways, and is compared with the replayed time, on CPUs with the launched one."
    )
    yield ""
    yield f"*Published* and *best public* numbers: {source}"
    yield ""
    yield f"*Targets*: {targets}"
    yield ""
    known = [name for name in HARDWARE if name in devices] or list(HARDWARE)[:1]
    yield (
        "*Floor*: a lower bound of the time. It is the longest of three times: bytes over bandwidth, operations over "
        "the rate of the matrix units, and exponentials, logarithms and reciprocals over the rate of their unit. The "
        "floor of an operator reads inputs once and writes results once. The floor of a network is the sum, over "
        "convolutions, matrix products and own operators, of the larger of the times of bytes and of operations. "
        "Norms, activations and copies are free."
    )
    yield ""
    for name in known:
        yield (
            f"- {name}: {HARDWARE[name]['bytes'] / 1e12:.2f} TB/s (a measured device copy), matrix units "
            f"{HARDWARE[name]['half_flops'] / 1e12:.0f} TFLOP/s in 16 bits (measured, half of it in TF32), "
            f"exponentials, logarithms and reciprocals {HARDWARE[name]['special_functions'] / 1e12:.2f} T/s"
        )


def _cells(row: PageRow) -> tuple[str, ...]:
    """Return a row of one of the first tables."""
    name = row.name
    launched_target = row.target_ms if row.device_type == "cpu" else row.target_launched_ms
    replayed_target = None if row.device_type == "cpu" else row.target_ms
    other = (
        _both(row.published_ms, row.published_replayed_ms, row.published_gib, row.published_note),
        _both(row.public_ms, row.public_replayed_ms),
        _both(launched_target, replayed_target, row.target_gib),
    )
    if row.status != "measured":
        return (name, row.status, "", "", *other, "", "", "")
    spread = f"{_number(row.launched_ms)} ({_number(row.p20_ms)} to {_number(row.p80_ms)})"
    ratios = (
        _ratio(row.best_other_ms, row.launched_ms),
        _ratio(row.best_other_replayed_ms, row.replayed_ms),
    )
    return (
        name,
        spread,
        _number(row.replayed_ms),
        _number(row.peak_gib),
        *other,
        _number(row.floor_ms),
        _ratio(row.ours_ms, row.floor_ms),
        ", ".join(ratio or "-" for ratio in ratios) if any(ratios) else "",
    )


def _baselines(rows: Sequence[PageRow]) -> Iterator[str]:
    """Compare the networks at each input in bf16, the fastest first."""
    header = ("input", "network", "step launched ms", "step replayed ms", "peak GiB")
    header += ("inference launched ms", "inference replayed ms")
    inputs = sorted({(row.input_size, row.device_suffix) for row in rows if row.is_baseline})
    lines = []
    for size, on in inputs:
        here = [row for row in rows if (row.input_size, row.device_suffix) == (size, on) and row.in_bf16]
        steps = [row for row in here if row.call in ("step", "")]
        for row in sorted(steps, key=lambda row: row.replayed_ms or float("inf")):
            inference = [other for other in here if other.entry == row.entry and other.call == "inference"]
            passes = (
                (_number(inference[0].launched_ms), _number(inference[0].replayed_ms))
                if inference
                else ("", "")
            )
            if row.status != "measured":
                why = f"{row.status}: {row.reason}" if row.reason else row.status
                lines.append((size + on, row.network, why, "", "", "", ""))
                continue
            numbers = (_number(row.launched_ms), _number(row.replayed_ms), _number(row.peak_gib))
            lines.append((size + on, row.network, *numbers, *passes))
    yield from table(header, iter(lines))


def _wrapped(line: str) -> list[str]:
    """Break a long line of text or of a list.

    Tables, headings and figures are not broken.
    """
    if len(line) <= _WIDTH or line.startswith(("|", "#", "![")):
        return [line]
    indent = " " * len(re.match(r"( *- )?", line)[0])
    # Code keeps its spaces, so that it is not broken.
    whole = re.sub("`[^`]+`", lambda code: code[0].replace(" ", "\0"), line)
    wrapped = textwrap.wrap(
        whole, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [one.replace("\0", " ") for one in wrapped]


def _number(value: float | None) -> str:
    """Format a number with three significant digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _both(
    launched: float | None, replayed: float | None, gib: float | None = None, note: str | None = None
) -> str:
    """Format the launched and the replayed number of others, or a target."""
    words = [f"{_number(launched) or '-'}, {_number(replayed) or '-'}"] if launched or replayed else []
    words += [f"({gib:g} GiB)"] if gib else []
    return " ".join([*words, note] if note else words)


def _ratio(above: float | None, below: float | None) -> str:
    return f"{above / below:.1f}" if above and below else ""


def main(words: Sequence[str] | None = None) -> int:
    """Write the page and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("records", nargs="*", type=Path, help="records, the most recent last")
    parser.add_argument("--output", "-o", type=Path, default=PAGE, help="page to write")
    arguments = parser.parse_args(words)
    arguments.output.write_text(make_page(arguments.records, page=arguments.output), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
