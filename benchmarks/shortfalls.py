"""Shortfalls: rows that miss a target or are slower than others."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.rows import PageRow

ANALYSIS = Path(__file__).parent / "analysis.json"
"""Explanations of shortfalls by the name of the row, written after an analysis of the run."""


def list_shortfalls(rows: Sequence[PageRow]) -> Iterator[str]:
    """Yield the lines of a list of shortfalls, with their explanations.

    A shortfall is a row of ours that misses a target, or takes more time or memory than another implementation in the
    same way of running, on the same device.
    """
    analysis = json.loads(ANALYSIS.read_text(encoding="utf-8"))
    lines = [line for row in rows for line in _lines_of(row, rows, analysis)]
    yield from lines or ["None among the measured rows."]


def list_rows_without_time(rows: Sequence[PageRow]) -> Iterator[str]:
    """Yield one line for every row without a time, with the reason.

    Such a row was not measured, failed or was skipped.
    """
    missing = [row for row in rows if row.status != "measured"]
    lines = [f"- {row.name}: {row.status}{f': {row.reason}' if row.reason else ''}." for row in missing]
    yield from lines or ["None."]


def _lines_of(row: PageRow, rows: Sequence[PageRow], analysis: dict[str, str]) -> Iterator[str]:
    """Yield the lines of one row, if it has a shortfall."""
    own = [*_missed_times(row), *_missed_memory(row)] if row.is_ours else []
    found = [*own, *_faster_baselines(row, rows)]
    if not found:
        return
    yield f"- {row.name}:"
    if own and row.floor_ms:
        found.append(f"The floor is {row.floor_ms:.3g} ms.")
    explanation = analysis.get(row.name, "The cause is not known yet." if own else None)
    yield from (f"  - {sentence}" for sentence in (*found, explanation) if sentence)


def _missed_times(row: PageRow) -> Iterator[str]:
    """Compare launched with launched, and replayed with replayed times."""
    both = [("Misses its target", *target) for target in row.targets]
    for verb, launched, replayed in (
        ("Slower than the published", row.published_ms, row.published_replayed_ms),
        ("Slower than the best public", row.public_ms, row.public_replayed_ms),
    ):
        both += [(verb, "launched", row.launched_ms, launched), (verb, "replayed", row.replayed_ms, replayed)]
    for verb, way, ours, other in both:
        if ours is not None and other is not None and ours > other:
            yield f"{verb}, {way}: {ours:.3g} ms, {ours / other:.2f} times {other:g} ms."


def _missed_memory(row: PageRow) -> Iterator[str]:
    for other, verb in (
        (row.target_gib, "Takes more memory than its target of"),
        (row.published_gib, "Takes more memory than the published"),
    ):
        if other is not None and row.peak_gib is not None and row.peak_gib > other:
            yield f"{verb} {other:g} GiB: {row.peak_gib:.2f} GiB."


def _faster_baselines(row: PageRow, rows: Sequence[PageRow]) -> Iterator[str]:
    """Compare a paper's network with the baselines at its input."""
    if not _is_compared(row) or row.is_baseline:
        return
    for other in filter(_is_compared, rows):
        same = (other.input_size, other.call, other.device) == (row.input_size, row.call, row.device)
        if not (other.is_baseline and same):
            continue
        for way, mine, its in (
            ("launched", row.launched_ms, other.launched_ms),
            ("replayed", row.replayed_ms, other.replayed_ms),
        ):
            if mine is not None and its is not None and mine > its:
                yield f"Slower than {other.network} at the same input, {way}: {mine:.3g} against {its:.3g} ms."


def _is_compared(row: PageRow) -> bool:
    """Whether a row is a timed network in the usual precision of its device."""
    return row.is_network and (row.in_bf16 or row.device_type == "cpu") and row.launched_ms is not None
