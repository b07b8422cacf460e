"""Where we lose, worked out from the rows of the performance page."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.rows import PageRow

ANALYSIS = Path(__file__).parent / "analysis.json"
"""What binds a row, in words, by its name; written after a run was looked into."""


def where_we_lose(rows: Sequence[PageRow]) -> Iterator[str]:
    """Name every row that misses a target, or is slower or larger than another's, with what binds it; one line each."""
    analysis = json.loads(ANALYSIS.read_text(encoding="utf-8"))
    lines = [f"{line} {_what_binds(row, analysis)}" for row in rows if row.is_ours for line in _faults(row)]
    lines += _slower_than_neighbours(rows, analysis)
    yield from lines or ["Nowhere among the rows that were measured."]


def _what_binds(row: PageRow, analysis: dict[str, str]) -> str:
    """Return what was written of a row: of the device at hand, where numbers are of several."""
    return analysis.get(row.name, "What binds it is not known yet.")


def without_a_number(rows: Sequence[PageRow]) -> Iterator[str]:
    """Name every row that was not measured, failed or was skipped, and why; one line each."""
    missing = [row for row in rows if row.status != "measured"]
    lines = [f"- {row.name}: {row.status}{f': {row.reason}' if row.reason else ''}." for row in missing]
    yield from lines or ["None."]


def _faults(row: PageRow) -> Iterator[str]:
    name = f"- {row.name}"
    floor = f" The floor is {row.floor_ms:.3g} ms." if row.floor_ms else ""
    for ours, other, what in (
        (row.ours_ms, row.target_ms, "misses its target of"),
        (row.comparable_ms, row.published_ms, "is slower than the published"),
        (row.comparable_ms, row.public_ms, "is slower than the best public"),
    ):
        if ours is not None and other is not None and ours > other:
            yield f"{name} {what} {other:g} ms: {ours:.3g} ms, {ours / other:.2f} times.{floor}"
    for other, what in (
        (row.target_gib, "takes more memory than its target of"),
        (row.published_gib, "takes more memory than the published"),
    ):
        if other is not None and row.peak_gib is not None and row.peak_gib > other:
            yield f"{name} {what} {other:g} GiB: {row.peak_gib:.2f} GiB."


def _slower_than_neighbours(rows: Sequence[PageRow], analysis: dict[str, str]) -> Iterator[str]:
    """Compare the papers' networks with their neighbours at the same input in bf16."""
    measured = [row for row in rows if row.is_network and row.in_bf16 and row.ours_ms is not None]
    neighbours = [row for row in measured if row.is_neighbour]
    for row in measured:
        if row.is_neighbour:
            continue
        for other in neighbours:
            same = (other.input_size, other.call, other.device) == (row.input_size, row.call, row.device)
            if same and row.ours_ms > other.ours_ms:
                times = f"{row.ours_ms:.3g} against {other.ours_ms:.3g} ms."
                line = f"- {row.name} is slower than {other.network} at the same input: {times}"
                yield f"{line} {analysis.get(row.name, '')}".rstrip()
