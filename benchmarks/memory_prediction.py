"""Predicted and measured peak memory of training steps.

Usage: python -m benchmarks.memory_prediction --device cuda -o benchmarks/results/NAME.json [--only WORD] [--seconds S]
       python -m benchmarks.memory_prediction --fit benchmarks/results/NAME.json
       python -m benchmarks.memory_prediction --again benchmarks/results/NAME.json

A row is a recipe on a synthetic data set, in a precision. Its plan is the one that `scanseg plan` makes, and its batch
is noise. Two steps warm up. Then the peak of allocated memory over two more steps is measured, launched kernel by
kernel. `graph_reserved_gib` is the memory that the process holds if steps are replayed as a CUDA graph, as in
trainings. `--fit` prints the constants of `scanseg.planning.memory` that fit a record best (least squares of relative
errors), and the remaining errors. `--again` predicts the rows of a record by the current constants, and writes the
predictions into the record.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe_run
from scanseg.batches.batches import Batch
from scanseg.models import network_of
from scanseg.planning.memory import OUTPUT_BYTES, Counts, Width, count_values, step_memory
from scanseg.planning.recipes import plan_recipe
from scanseg.runtime import RunContext
from scanseg.runtime.device import autocast_dtype, choose_device
from scanseg.settings import apply_settings
from scanseg.specs import CaseMeasures, DatasetSpec, Fingerprint, IntensityStatistics, Plan
from scanseg.training.step import TrainingStep

_GIB = 2**30
_WARM_UPS, _STEPS = 2, 2
BAR = 0.15
"""Largest accepted error of a prediction, relative to the measurement."""


@dataclass(frozen=True)
class SyntheticDataset:
    """The properties of a data set that planning uses."""

    name: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    channels: tuple[str, ...]
    num_labels: int
    num_cases: int = 100

    def plan(self, recipe: str) -> Plan:
        """Return the plan of a recipe."""
        statistics = IntensityStatistics(
            mean=0.0,
            median=0.0,
            standard_deviation=1.0,
            minimum=-1.0,
            maximum=1.0,
            percentile_00_5=-1.0,
            percentile_99_5=1.0,
        )
        cases = tuple(
            CaseMeasures(case=str(number), spacing=self.spacing, shape=self.shape, source_shape=self.shape)
            for number in range(self.num_cases)
        )
        fingerprint = Fingerprint(
            num_axes=2 if self.shape[0] == 1 else 3,
            cases=cases,
            intensities=(statistics,) * len(self.channels),
            median_relative_size_after_crop=1.0,
        )
        labels = {"background": 0} | {f"label {value}": value for value in range(1, self.num_labels + 1)}
        dataset = DatasetSpec(
            name=self.name, channel_names=self.channels, labels=labels, file_ending=".nii.gz"
        )
        return plan_recipe(fingerprint, dataset, recipe=recipe)


HIPPOCAMPUS = SyntheticDataset("hippocampus", (1.0, 1.0, 1.0), (36, 50, 35), ("MRI",), 2, num_cases=260)
PROSTATE = SyntheticDataset("prostate", (3.6, 0.625, 0.625), (20, 320, 319), ("T2", "ADC"), 2, num_cases=32)
ABDOMEN = SyntheticDataset("abdomen", (3.0, 0.8, 0.8), (130, 512, 512), ("CT",), 13)
BRAIN = SyntheticDataset("brain", (1.0, 1.0, 1.0), (138, 170, 138), ("T1", "T1ce", "T2", "FLAIR"), 3, 484)
ENDOSCOPY = SyntheticDataset(
    "endoscopy", (999.0, 1.0, 1.0), (1, 384, 640), ("R", "G", "B"), 7, num_cases=1800
)
CELLS = SyntheticDataset("cells", (999.0, 1.0, 1.0), (1, 512, 512), ("R", "G", "B"), 2, num_cases=1000)

ROWS: tuple[tuple[str, SyntheticDataset, str], ...] = tuple(
    (recipe, dataset, precision)
    for precision in ("auto", "float32")
    for dataset in (HIPPOCAMPUS, ABDOMEN, ENDOSCOPY, PROSTATE, BRAIN, CELLS)
    for recipe in ("xlstm-unet", "plain-unet", "residual-unet", "msvm-unet")
    if (precision == "auto" or dataset in (HIPPOCAMPUS, ABDOMEN, ENDOSCOPY))
    and (recipe != "msvm-unet" or dataset in (ABDOMEN, ENDOSCOPY))
)
"""The most important first, since a run ends at its time limit."""


@dataclass(frozen=True)
class MemoryRow:
    """One comparison of predicted and measured memory."""

    recipe: str
    kind: str
    dataset: str
    precision: str
    width: Width
    patch_size: tuple[int, ...]
    batch_size: int
    counts: Counts
    weights_bytes: float
    spared_bytes: float
    states_bytes: float
    predicted_gib: float
    measured_gib: float
    graph_reserved_gib: float | None
    error: float
    """(predicted - measured) / measured."""


def measure_row(recipe: str, dataset: SyntheticDataset, precision: str, *, device: torch.device) -> MemoryRow:
    """Predict and measure the memory of a row."""
    plan = apply_settings(dataset.plan(recipe), (f"training.precision={precision}",))
    dtype = autocast_dtype(device, plan.training.precision)
    width: Width = 32 if dtype is None else 16
    counts = count_values(plan)
    predicted = step_memory(plan, width=width, counts=counts)
    measured = _peak(apply_settings(plan, ("training.cuda_graph=false",)), dtype, device=device)[0]
    reserved = _peak(plan, dtype, device=device)[1]
    return MemoryRow(
        recipe=recipe,
        kind=plan.network.kind,
        dataset=dataset.name,
        precision=precision,
        width=width,
        patch_size=plan.sampling.patch_size,
        batch_size=plan.sampling.batch_size,
        counts=counts,
        weights_bytes=predicted.weights_bytes,
        spared_bytes=predicted.spared_bytes,
        states_bytes=predicted.states_bytes,
        predicted_gib=predicted.total_bytes / _GIB,
        measured_gib=measured / _GIB,
        graph_reserved_gib=reserved / _GIB,
        error=predicted.total_bytes / measured - 1,
    )


def _peak(plan: Plan, dtype: torch.dtype | None, *, device: torch.device) -> tuple[int, int]:
    """Return peak allocated bytes, and bytes reserved at the end."""
    _free_memory(device)
    network = network_of(plan)
    step = TrainingStep(plan, network.to(device), context=RunContext(device=device), autocast_dtype=dtype)
    size = (plan.sampling.batch_size, *plan.sampling.patch_size)
    images = torch.randn(size[0], plan.dataset.num_channels, *size[1:], device=device)
    label_maps = torch.randint(plan.dataset.num_outputs, size, device=device, dtype=torch.uint8)
    batch = Batch(images, label_maps)
    for _ in range(_WARM_UPS):
        step.run(batch, lr=1e-5)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(_STEPS):
        step.run(batch, lr=1e-5)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device), torch.cuda.memory_reserved(device)


def _free_memory(device: torch.device) -> None:
    """Free the memory of earlier rows."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def predict_again(row: Mapping[str, Any]) -> dict[str, Any]:
    """Predict a row of a record by the current constants.

    Args:
        row: A row with the values counted at its measurement.
    """
    dataset = next(dataset for _, dataset, _ in ROWS if dataset.name == row["dataset"])
    plan = apply_settings(dataset.plan(row["recipe"]), (f"training.precision={row['precision']}",))
    predicted = step_memory(plan, width=row["width"], counts=Counts(**row["counts"]))
    gib = predicted.total_bytes / _GIB
    return {
        **row,
        "weights_bytes": predicted.weights_bytes,
        "spared_bytes": predicted.spared_bytes,
        "states_bytes": predicted.states_bytes,
        "predicted_gib": gib,
        "error": gib / row["measured_gib"] - 1,
    }


def fit_constants(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the best constants for each width, and the remaining errors.

    Args:
        rows: Rows of a record.
    """
    for width in sorted({row["width"] for row in rows}):
        chosen = [row for row in rows if row["width"] == width]
        kinds = sorted({row["kind"] for row in chosen})
        measured = np.array([row["measured_gib"] * _GIB for row in chosen])
        known = np.array([_known_bytes(row) for row in chosen])
        columns = [[_map_values(row) * (row["kind"] == kind) for row in chosen] for kind in kinds]
        matrix = np.array([*columns, [_GIB] * len(chosen)], dtype=float).T
        constants = np.linalg.lstsq(matrix / measured[:, None], 1 - known / measured)[0]
        errors = (known + matrix @ constants) / measured - 1
        fitted = ", ".join(f"{kind} {value:.2f}" for kind, value in zip(kinds, constants, strict=False))
        yield (
            f"{width} bits, {len(chosen)} rows: workspace {constants[-1]:.2f} GiB, bytes per value: {fitted}, errors "
            f"{errors.min():+.1%} to {errors.max():+.1%}"
        )


def _known_bytes(row: Mapping[str, Any]) -> float:
    """Return the part of a row's peak that is not fitted."""
    outputs = row["batch_size"] * row["counts"]["output_values"]
    states_bytes = row.get("states_bytes", 0.0)  # older records have none
    return row["weights_bytes"] - row["spared_bytes"] + states_bytes + OUTPUT_BYTES * outputs


def _map_values(row: Mapping[str, Any]) -> int:
    return row["batch_size"] * row["counts"]["map_values"]


def main() -> int:
    """Run the comparison, or fit constants to its record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument(
        "--only", default="", help="measure only rows with this word in their recipe, data set or precision"
    )
    parser.add_argument("--seconds", type=float, default=480.0, help="start no row after this time")
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    parser.add_argument("--fit", type=Path, help="record to fit constants to")
    parser.add_argument("--again", type=Path, help="record to predict again")
    arguments = parser.parse_args()
    if arguments.fit is not None:
        for line in fit_constants(json.loads(arguments.fit.read_text())["rows"]):
            print(line)
        return 0
    if arguments.again is not None:
        record = json.loads(arguments.again.read_text())
        record["rows"] = [predict_again(row) for row in record["rows"]]
        record["predicted_by_commit"] = describe_run(torch.device("cpu"), commit=arguments.commit)["commit"]
        arguments.again.write_text(json.dumps(record, indent=1) + "\n")
        return _print_summary(record["rows"], record["not_measured"])
    device = choose_device(arguments.device)
    if device.type != "cuda":
        print(f"--device: expected a GPU with CUDA to measure peak memory, got {device}", file=sys.stderr)
        return 2
    rows, missed, begin = [], [], time.monotonic()
    for recipe, dataset, precision in ROWS:
        name = f"{recipe} {dataset.name} {precision}"
        if arguments.only not in name:
            continue
        if time.monotonic() - begin > arguments.seconds:
            missed.append(name)
            continue
        row = measure_row(recipe, dataset, precision, device=device)
        rows.append(row)
        print(
            f"{name}: {row.patch_size} x {row.batch_size}, predicted {row.predicted_gib:.2f} GiB, measured "
            f"{row.measured_gib:.2f} ({row.error:+.1%}), reserved with a graph {row.graph_reserved_gib:.2f}",
            flush=True,
        )
    record = {
        **describe_run(device, commit=arguments.commit),
        "rows": [asdict(row) for row in rows],
        "not_measured": missed,
    }
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    for line in fit_constants(record["rows"]):
        print(line)
    return _print_summary(record["rows"], missed)


def _print_summary(rows: Sequence[Mapping[str, Any]], missed: Sequence[str]) -> int:
    """Print the number of rows within the bar.

    Returns:
        0 if all rows are within the bar, otherwise 1.
    """
    num_within = sum(abs(row["error"]) <= BAR for row in rows)
    print(f"{num_within} of {len(rows)} rows within {BAR:.0%}, {len(missed)} not measured")
    return 0 if num_within == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
