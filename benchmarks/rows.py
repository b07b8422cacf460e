"""Rows of the performance page: measurements, numbers of others and targets."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.roofline import HARDWARE

PUBLISHED = Path(__file__).parent / "published.json"
"""Numbers of the published and other public implementations, and the targets, with their sources."""

BASELINES = ("nnunet-", "monai-", "plain-unet")
"""Prefixes of the names of baselines. `plain-unet` is nnU-Net's architecture in our code."""
OTHER_PROJECTS = ("nnunet-", "monai-")
"""Prefixes of the names of networks that other projects implement."""


@dataclass(frozen=True)
class PageRow:
    """One call of one entry. Unknown values are None."""

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
    """Launched. Numbers of others are of the same device as the row."""
    published_replayed_ms: float | None = None
    published_gib: float | None = None
    published_note: str | None = None
    public_ms: float | None = None
    """Launched."""
    public_replayed_ms: float | None = None
    target_launched_ms: float | None = None
    target_ms: float | None = None
    """Target of the replayed time on a GPU, and of the launched time on a CPU."""
    target_gib: float | None = None
    device: str = ""
    """The short name of the GPU, or the CPU."""
    device_suffix: str = ""
    """` on ` and the device, if the page has numbers of several GPUs. Otherwise empty."""

    @property
    def name(self) -> str:
        """Name of the row on the page."""
        return f"{self.entry} {self.call}".strip() + self.device_suffix

    @property
    def network(self) -> str:
        """The network: the first part of the entry's name."""
        return self.entry.split("/")[0]

    @property
    def input_size(self) -> str:
        """The input size: the second part of the entry's name."""
        return self.entry.split("/")[1]

    @property
    def in_bf16(self) -> bool:
        """Whether it computes in bfloat16."""
        return self.entry.endswith("/bfloat16")

    @property
    def is_baseline(self) -> bool:
        """Whether its network is a baseline, not a network of the papers."""
        return self.entry.startswith(BASELINES)

    @property
    def is_ours(self) -> bool:
        """Whether our code computes it."""
        return not self.entry.startswith(OTHER_PROJECTS)

    @property
    def is_network(self) -> bool:
        """Whether the call is one of a whole network."""
        return self.call in ("step", "inference", "inference-batch-1")

    @property
    def ours_ms(self) -> float | None:
        """Shortest of our times, for the distance to the floor, which bounds all of them."""
        return self.launched_ms if self.replayed_ms is None else self.replayed_ms

    @property
    def best_other_ms(self) -> float | None:
        """Shortest launched time of another implementation."""
        return _least(self.published_ms, self.public_ms)

    @property
    def best_other_replayed_ms(self) -> float | None:
        """Shortest replayed time of another implementation."""
        return _least(self.published_replayed_ms, self.public_replayed_ms)

    @property
    def targets(self) -> tuple[tuple[str, float | None, float | None], ...]:
        """Way of running, our time and its target, for both ways."""
        if self.device_type == "cpu":
            return (("launched", self.launched_ms, self.target_ms),)
        return (
            ("launched", self.launched_ms, self.target_launched_ms),
            ("replayed", self.replayed_ms, self.target_ms),
        )


def _least(*times: float | None) -> float | None:
    return min((ms for ms in times if ms is not None), default=None)


def read_sources() -> tuple[str, str]:
    """Return the sources of the numbers of others and of the targets."""
    document = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return document["source"], document["targets"]


def read_record(path: Path) -> dict[str, Any]:
    """Read a record of `benchmarks.run` or of another program of this package.

    Raises:
        ValueError: The record was made with `--tiny`.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    settings = record.get("settings")
    if isinstance(settings, dict) and settings.get("tiny"):
        raise ValueError(
            f"{path}: expected a record of whole entries, got entries shrunk for a test. Measure without --tiny."
        )
    return record


def read_rows(records: Sequence[Path]) -> list[PageRow]:
    """Return the rows of all records, beside the published numbers.

    Published rows without a measurement are included.

    Args:
        records: Files. If several records of one device have a row, the last one counts.
    """
    published = {(row["entry"], row["call"], row["device"]): row for row in _published()}
    found: dict[tuple[str, str, str], PageRow] = {}
    for path in records:
        record = read_record(path)
        device = _short_name(record["device"])
        for row in record["rows"]:
            where = device if record["device_type"] == "cuda" else "cpu"
            known = published.get((row["entry"], row.get("call", ""), where), {})
            found[row["entry"], row.get("call", ""), device] = _measured_row(
                row, known, device_type=record["device_type"], device=device
            )
    measured = {row.entry for row in found.values() if row.status == "measured"}
    rows = [row for row in found.values() if row.call or row.entry not in measured]
    present = {(row.entry, row.call) for row in rows} | {(row.entry, "") for row in rows if not row.call}
    for (entry, call, device), known in published.items():
        if (entry, call) not in present and (entry, "") not in present:
            kind = "cpu" if device == "cpu" else "cuda"
            rows.append(PageRow(entry, call, kind, status="not measured", **_numbers(known)))
            present.add((entry, call))
    gpus = {row.device for row in rows if row.device_type == "cuda" and row.device}
    return [
        replace(row, device_suffix=f" on {row.device}") if len(gpus) > 1 and row.device in gpus else row
        for row in rows
    ]


def _short_name(device: str) -> str:
    """Return the short name of a device in the table of hardware.

    Other devices keep their full name.
    """
    return next((name for name in HARDWARE if name in device), device)


def _published() -> list[dict[str, Any]]:
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))["rows"]


def _numbers(known: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in known.items() if name not in ("entry", "call", "device")}


def _measured_row(row: dict[str, Any], known: dict[str, Any], *, device_type: str, device: str) -> PageRow:
    """Combine a row of a record with the published numbers."""
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
