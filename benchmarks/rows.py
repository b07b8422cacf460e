"""Rows of the performance page: what was measured, beside what others have and what was aimed at."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.roofline import HARDWARE

PUBLISHED = Path(__file__).parent / "published.json"
"""Numbers of the published and other public implementations, and the targets, with their source."""

NEIGHBOURS = ("nnunet-", "monai-", "plain-unet")
"""How the names of other networks begin; `plain-unet` is nnU-Net's shape built by us."""
FOREIGN = ("nnunet-", "monai-")


@dataclass(frozen=True)
class PageRow:
    """One call of one entry. What is not known is None."""

    entry: str
    call: str
    device_type: str
    status: str
    reason: str | None = None
    launched_ms: float | None = None
    p20_ms: float | None = None
    p80_ms: float | None = None
    replayed_ms: float | None = None
    peak_gib: float | None = None
    floor_ms: float | None = None
    published_ms: float | None = None
    published_gib: float | None = None
    published_note: str | None = None
    public_ms: float | None = None
    target_ms: float | None = None
    target_gib: float | None = None
    device: str = ""
    """The GPU, in short, or the CPU."""
    on: str = ""
    """` on ` and the device, where the page has numbers of several GPUs."""

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.entry} {self.call}".strip() + self.on

    @property
    def network(self) -> str:
        """First part of the entry's name."""
        return self.entry.split("/")[0]

    @property
    def input_size(self) -> str:
        """Second part of the entry's name."""
        return self.entry.split("/")[1]

    @property
    def in_bf16(self) -> bool:
        """Whether it computes in bfloat16."""
        return self.entry.endswith("/bfloat16")

    @property
    def is_neighbour(self) -> bool:
        """Whether it is another network than the papers'."""
        return self.entry.startswith(NEIGHBOURS)

    @property
    def is_ours(self) -> bool:
        """Whether our code computes it."""
        return not self.entry.startswith(FOREIGN)

    @property
    def is_network(self) -> bool:
        """Whether it is a whole network."""
        return self.call in ("step", "inference", "inference-batch-1")

    @property
    def ours_ms(self) -> float | None:
        """The time that counts against targets and floors: replayed, as users run it, where that was measured."""
        return self.launched_ms if self.replayed_ms is None else self.replayed_ms

    @property
    def comparable_ms(self) -> float | None:
        """The time that counts against others' numbers: of operators launched, as theirs were."""
        return self.ours_ms if self.is_network else self.launched_ms

    @property
    def best_other_ms(self) -> float | None:
        """The shortest time of another implementation."""
        return min((ms for ms in (self.published_ms, self.public_ms) if ms is not None), default=None)


def read_sources() -> tuple[str, str]:
    """Return in words where the numbers of others and the targets are from."""
    document = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return document["source"], document["targets"]


def read_record(path: Path) -> dict[str, Any]:
    """Read a record of `benchmarks.run` or another of these programs.

    Raises:
        ValueError: It was made of shrunken entries.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    settings = record.get("settings")
    if isinstance(settings, dict) and settings.get("tiny"):
        raise ValueError(f"{path}: its entries were shrunk for a test (--tiny); measure them whole")
    return record


def read_rows(records: Sequence[Path]) -> list[PageRow]:
    """Return the rows of all records beside the published numbers; published rows that nobody measured come too.

    Args:
        records: Files; of rows that several of one device have, the last counts.
    """
    published = {(row["entry"], row["call"]): row for row in _published()}
    found: dict[tuple[str, str, str], PageRow] = {}
    for path in records:
        record = read_record(path)
        device = _short_name(record["device"])
        for row in record["rows"]:
            known = published.get((row["entry"], row.get("call", "")), {})
            found[row["entry"], row.get("call", ""), device] = _measured_row(
                row, known, device_type=record["device_type"], device=device
            )
    measured = {row.entry for row in found.values() if row.status == "measured"}
    rows = [row for row in found.values() if row.call or row.entry not in measured]
    there = {(row.entry, row.call) for row in rows} | {(row.entry, "") for row in rows if not row.call}
    for (entry, call), known in published.items():
        if (entry, call) not in there and (entry, "") not in there:
            device = "cpu" if entry.endswith("/float32") else "cuda"
            rows.append(PageRow(entry, call, device, status="not measured", **_numbers(known)))
    gpus = {row.device for row in rows if row.device_type == "cuda" and row.device}
    return [
        replace(row, on=f" on {row.device}") if len(gpus) > 1 and row.device in gpus else row for row in rows
    ]


def _short_name(device: str) -> str:
    """Return the name of a device as the table of hardware has it, if it is there."""
    return next((name for name in HARDWARE if name in device), device)


def _published() -> list[dict[str, Any]]:
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))["rows"]


def _numbers(known: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in known.items() if name not in ("entry", "call")}


def _measured_row(row: dict[str, Any], known: dict[str, Any], *, device_type: str, device: str) -> PageRow:
    """Join a row of a record with the published numbers."""
    eager, replay = row.get("eager") or {}, row.get("replay") or {}
    return PageRow(
        entry=row["entry"],
        call=row.get("call", ""),
        device_type=device_type,
        status=row["status"],
        reason=row.get("reason"),
        launched_ms=eager.get("median_ms"),
        p20_ms=eager.get("p20_ms"),
        p80_ms=eager.get("p80_ms"),
        replayed_ms=replay.get("median_ms"),
        peak_gib=eager.get("peak_gib"),
        floor_ms=row.get("floor_ms"),
        device=device,
        **_numbers(known),
    )
