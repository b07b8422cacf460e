"""Make `docs/performance.md` of records.

Usage: python -m benchmarks.page RECORD.json ... -o docs/performance.md

Every number of the page is computed here from the records, `published.json` (numbers of others, and targets) and
`hardware.json`; `analysis.json` says in words what binds a row that misses. Where several records have a row, the last
one counts. Records of `growth`, `step_profile`, `fp16_run` and `memory_prediction` have sections of their own.
Without records the page shows what is to be measured.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.other_records import kind_of, sections, table
from benchmarks.roofline import HARDWARE
from benchmarks.rows import PageRow, read_record, read_rows, read_sources
from benchmarks.shortfalls import where_we_lose, without_a_number

PAGE = Path("docs/performance.md")
SECTIONS = (
    ("SS2D core: projections, scan, merge, norm (batch 32)", ("ss2d-core/",), None),
    ("mLSTM cell: batch x heads x tokens x features of a head", ("mlstm/",), "cuda"),
    ("Training steps: forward, loss, backward", ("msvm-unet/", "xlstm-unet-"), "step"),
    ("Inference", ("msvm-unet/", "xlstm-unet-"), "inference"),
    ("Loss: Dice and cross-entropy of one stage", ("loss/",), "cuda"),
    ("CPU", ("ss2d-scan/", "mlstm/"), "cpu"),
)
HEADER = (
    "row",
    "launched ms (20 to 80 %)",
    "replayed ms",
    "peak GiB",
    "published ms, GiB",
    "best public ms",
    "target ms, GiB",
    "floor ms",
    "ours / floor",
    "best other / ours",
)


def make_page(records: Sequence[Path], *, page: Path) -> str:
    """Return the page.

    Args:
        records: Files of records, the most recent last.
        page: Where the page will lie: links lead from there.
    """
    kinds = [(kind_of(path), path) for path in records]
    rows = read_rows([path for kind, path in kinds if kind == "entries"])
    others = [(kind, read_record(path)) for kind, path in kinds if kind != "entries"]
    lines = [
        "# Performance",
        "",
        "Made by `python -m benchmarks.page` from the records below; do not edit.",
        "",
        *_records(records, page),
        "",
        *_reading([row.device for row in rows]),
    ]
    for title, prefixes, kind in SECTIONS:
        chosen = [row for row in rows if row.entry.startswith(prefixes) and _is_of(row, kind)]
        if chosen:
            lines += ["", f"## {title}", "", *table(HEADER, (_cells(row) for row in chosen))]
    lines += ["", "## Neighbours at the same inputs", "", *_neighbours(rows)]
    lines += sections(others)
    lines += ["", "## Where we lose", "", *where_we_lose(rows)]
    lines += ["", "## Without a number", "", *without_a_number(rows)]
    return "\n".join(lines) + "\n"


def _is_of(row: PageRow, kind: str | None) -> bool:
    """Whether a row belongs to a section: by its device, or by its call."""
    if kind in ("cuda", "cpu"):
        return row.device_type == kind
    return kind is None or row.call.startswith(kind)


def _records(records: Sequence[Path], page: Path) -> Iterator[str]:
    """Say which records there are, on what they were taken and from which code."""
    if not records:
        yield "Records: none yet."
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
    """Say how numbers measured on these devices are to be read."""
    source, targets = read_sources()
    yield (
        "Medians of single calls after warm-up, by the GPU's own events; every entry of ours was compared with float64 "
        "in the same run first. *Launched*: kernel by kernel from Python; *replayed*: as one CUDA graph, as `scanseg "
        "train` and `scanseg predict` do. Peak memory is that of the launched call with weights and inputs. Operators "
        "begin with an empty cache. Against targets and floors ours count as replayed, as users run them. Against the "
        "numbers of others operators count as launched, as those were, whole "
        "networks as replayed; steps of neighbours are given both ways."
    )
    yield ""
    yield f"*Published*, *best public*: {source}"
    yield ""
    yield f"*Targets*: {targets}"
    yield ""
    known = [name for name in HARDWARE if name in devices] or list(HARDWARE)[:1]
    rates = "; ".join(
        f"{name}: {HARDWARE[name]['bytes'] / 1e12:.2f} TB/s (a measured device copy), matrix units "
        f"{HARDWARE[name]['half_flops'] / 1e12:.0f} TFLOP/s in 16 bits (measured; half of it in TF32), exponentials, "
        f"logarithms and reciprocals {HARDWARE[name]['special_functions'] / 1e12:.2f} T/s"
        for name in known
    )
    yield (
        "*Floor*: the longest of bytes over bandwidth, operations over the rate of the matrix units, and exponentials, "
        f"logarithms and reciprocals over theirs ({rates}). For "
        "operators inputs are read once and results written once; for networks it is the sum, over convolutions, "
        "matrix products and own operators, of the larger of bytes and operations, with all else (norms, activations, "
        "copies) free."
    )
    if len(known) > 1:
        yield ""
        yield (
            "Numbers of others and targets are for the H100. An H200 has its multiprocessors and faster memory: a row "
            "of its is no win over an H100's numbers where memory binds."
        )


def _cells(row: PageRow) -> tuple[str, ...]:
    """Return a row of one of the first tables."""
    name = row.name
    other = (
        _with_memory(row.published_ms, row.published_gib, row.published_note),
        _number(row.public_ms),
        _with_memory(row.target_ms, row.target_gib, None),
    )
    if row.status != "measured":
        return (name, row.status, "", "", *other, "", "", "")
    spread = f"{_number(row.launched_ms)} ({_number(row.p20_ms)} to {_number(row.p80_ms)})"
    return (
        name,
        spread,
        _number(row.replayed_ms),
        _number(row.peak_gib),
        *other,
        _number(row.floor_ms),
        _ratio(row.ours_ms, row.floor_ms),
        _ratio(row.best_other_ms, row.comparable_ms),
    )


def _neighbours(rows: Sequence[PageRow]) -> Iterator[str]:
    """Compare the networks at one input, in bf16; the fastest first."""
    header = ("input", "network", "step launched ms", "step replayed ms", "peak GiB", "inference replayed ms")
    inputs = sorted({(row.input_size, row.on) for row in rows if row.is_neighbour})
    lines = []
    for size, on in inputs:
        here = [row for row in rows if (row.input_size, row.on) == (size, on) and row.in_bf16]
        steps = [row for row in here if row.call in ("step", "")]
        for row in sorted(steps, key=lambda row: row.ours_ms or float("inf")):
            inference = [other for other in here if other.entry == row.entry and other.call == "inference"]
            replayed = _number(inference[0].replayed_ms) if inference else ""
            if row.status != "measured":
                why = f"{row.status}: {row.reason}" if row.reason else row.status
                lines.append((size + on, row.network, why, "", "", ""))
                continue
            numbers = (_number(row.launched_ms), _number(row.replayed_ms), _number(row.peak_gib), replayed)
            lines.append((size + on, row.network, *numbers))
    yield from table(header, iter(lines))


def _number(value: float | None) -> str:
    """Return three significant digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _with_memory(ms: float | None, gib: float | None, note: str | None) -> str:
    words = [_number(ms), f"{gib:g} GiB" if gib else "", (note or "") if ms is None else ""]
    return ", ".join(word for word in words if word)


def _ratio(above: float | None, below: float | None) -> str:
    return f"{above / below:.1f}" if above and below else ""


def main(words: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("records", nargs="*", type=Path)
    parser.add_argument("--output", "-o", type=Path, default=PAGE)
    arguments = parser.parse_args(words)
    arguments.output.write_text(make_page(arguments.records, page=arguments.output), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
