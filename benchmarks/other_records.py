"""Sections of the performance page for growth, steps, float16 and memory.

The kind of a record follows from its content, so `python -m benchmarks.page` takes all records in one list.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

Kind = Literal["entries", "growth", "steps", "float16", "memory"]
Record = dict[str, Any]
_TOKENS = 1024


def kind_of(path: Path) -> Kind:
    """Return the kind of a record.

    Raises:
        ValueError: No program of this package wrote the file.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    if "kernel_ms_a_step" in record:
        return "steps"
    if "nonfinite_gradients" in record:
        return "float16"
    first = next(iter(record.get("rows", ())), {})
    if "tokens" in first:
        return "growth"
    if "predicted_gib" in first:
        return "memory"
    if "entry" in first:
        return "entries"
    raise ValueError(
        f"{path}: expected a record of benchmarks.run, growth, step_profile, fp16_run or memory_prediction. "
        f"Choose a file that one of them wrote."
    )


def sections(records: Sequence[tuple[Kind, Record]]) -> Iterator[str]:
    """Yield a section for every kind of record except entries."""
    for kind, title, rows in _SECTIONS:
        chosen = [record for other, record in records if other == kind]
        if chosen:
            yield from ("", f"## {title}", "", *rows(chosen))


def table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def _growth(records: Sequence[Record]) -> Iterator[str]:
    """Yield time and memory by tokens, from the last record."""
    yield (
        "Forward and backward of one image, launched from Python. Below about 64k tokens, launching takes longer than "
        "the kernels. The published form of the mLSTM compares every token with every earlier token."
    )
    yield from ("", "![Time and peak memory from 1k to 128k tokens](pictures/linear-growth.png)", "")
    rows = records[-1]["rows"]
    tokens = sorted({row["tokens"] for row in rows})
    series = list(dict.fromkeys((row["operator"], row["backend"]) for row in rows))
    found = {(row["operator"], row["backend"], row["tokens"]): row for row in rows}

    def cell(row: Record | None) -> str:
        if row is None:
            return ""
        return (
            f"{row['median_ms']:.3g}, {row['peak_gib']:.3g}" if row["status"] == "measured" else row["status"]
        )

    header = ("ms, GiB", *(f"{number // _TOKENS}k" for number in tokens))
    lines = (
        (f"{operator}, {backend}", *(cell(found.get((operator, backend, number))) for number in tokens))
        for operator, backend in series
    )
    yield from table(header, lines)


def _steps(records: Sequence[Record]) -> Iterator[str]:
    """Yield the part of a training step in which the GPU works."""
    yield (
        "Steps of `scanseg train` on real cases, with sampling and augmentation (`python -m benchmarks.step_profile`). "
        "*Kernels* is the time in which at least one kernel runs, from a profile. The profiler itself slows the host."
    )
    yield ""
    header = (
        "plan",
        "settings",
        "ms a step",
        "kernels ms",
        "kernels / time",
        "kernels / time while profiled",
        "commit",
    )
    lines = (
        (
            f"{Path(record['plan']).stem}, {record['network']}",
            " ".join(record["settings"]),
            f"{record['ms_a_step']:.1f}",
            f"{record['kernel_ms_a_step']:.1f}",
            f"{record['busy_of_unprofiled']:.1%}",
            f"{record['busy']:.1%}",
            f"`{record['commit']}`",
        )
        for record in records
    )
    yield from table(header, lines)


def _float16(records: Sequence[Record]) -> Iterator[str]:
    """Yield the results of trainings in float16."""
    yield (
        "Training steps in float16 on real cases (`python -m benchmarks.fp16_run`). A step whose gradients overflow is "
        "skipped and halves the scale of the loss."
    )
    yield ""
    header = ("network", "plan", "steps", "skipped", "first and last loss", "last scale", "verdict", "commit")

    def cells(record: Record) -> Sequence[str]:
        finite = [loss for loss in record["loss"] if loss is not None]
        return (
            record["network"],
            Path(record["plan"]).stem,
            str(record["num_steps"]),
            str(record["num_skipped_steps"]),
            f"{finite[0]:.3f}, {finite[-1]:.3f}",
            f"{record['loss_scale'][-1]:g}",
            "; ".join(record["faults"]) or "all losses and parameters finite",
            f"`{record['commit']}`",
        )

    yield from table(header, map(cells, records))


def _memory(records: Sequence[Record]) -> Iterator[str]:
    """Yield predicted and measured peaks."""
    yield (
        "Peak memory of a training step, as predicted by `scanseg plan` and as measured (`python -m "
        "benchmarks.memory_prediction`). The last column is the memory that the process holds with a CUDA graph."
    )
    yield ""
    header = (
        "recipe",
        "data",
        "precision",
        "patch, batch",
        "predicted GiB",
        "measured GiB",
        "error",
        "held GiB",
    )
    lines = (
        (
            row["recipe"],
            row["dataset"],
            row["precision"],
            f"{'x'.join(map(str, row['patch_size']))}, {row['batch_size']}",
            f"{row['predicted_gib']:.2f}",
            f"{row['measured_gib']:.2f}",
            f"{row['error']:+.0%}",
            f"{row['graph_reserved_gib']:.2f}" if row["graph_reserved_gib"] else "",
        )
        for record in records
        for row in record["rows"]
    )
    yield from table(header, lines)


_SECTIONS: tuple[tuple[Kind, str, Callable[[Sequence[Record]], Iterator[str]]], ...] = (
    ("growth", "Growth with the number of tokens", _growth),
    ("steps", "Training steps with their data", _steps),
    ("float16", "A thousand steps in float16", _float16),
    ("memory", "Predicted memory", _memory),
)
