"""Measure cases per second of a prediction with one and with several devices.

Usage: python -m benchmarks.cohort MODEL IMAGES --devices cuda:0 cuda:0,cuda:1 -o benchmarks/results/NAME.json
       python -m benchmarks.cohort --table benchmarks/results/NAME.json --price 3.50

Each choice of devices segments all images with `scanseg.predict_cohort` in a new folder. Loading the model is measured
apart. The first choice is measured once without being counted: it fills the caches of the system and compiles kernels.
The label maps of all choices must be equal. Without MODEL and IMAGES, `--synthetic N` makes N volumes of 36x50x35
voxels and a model of the recipe `xlstm-unet-fast` with random weights, to check the benchmark itself. Measure on an
idle machine.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import scanseg
from benchmarks.machine import describe_run
from benchmarks.whole_prediction import write_dataset
from scanseg.errors import InputError
from scanseg.models import ModelFolder, network_of
from scanseg.specs import PredictionRecord


def main(words: Sequence[str] | None = None) -> int:
    """Measure all choices of devices, or print the table of a record, and return the exit code."""
    arguments = _parse(words)
    if arguments.table is not None:
        print(table(json.loads(arguments.table.read_text(encoding="utf-8")), price=arguments.price))
        return 0
    first = arguments.devices[0].split(",")[0]
    record = {
        **describe_run(torch.device(first), commit=arguments.commit),
        "settings": {},
        "golden": [],
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        model, images = arguments.model, arguments.images
        if arguments.synthetic:
            model, images = make_synthetic(Path(folder), arguments.synthetic)
        record["rows"] = measure(model, images, Path(folder), arguments)
    print(table(record, price=arguments.price))
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def make_synthetic(folder: Path, number: int) -> tuple[Path, Path]:
    """Write volumes and a model with random weights.

    Args:
        folder: Existing folder.
        number: Number of volumes.

    Returns:
        Folders of the model and of the volumes.
    """
    dataset = write_dataset(folder / "dataset", "volume")
    plan = scanseg.make_plan(dataset, recipe="xlstm-unet-fast", num_workers=0, progress=False)
    torch.manual_seed(0)
    ModelFolder.create(folder / "model", plan).write_weights(network_of(plan).state_dict())
    images = folder / "images"
    images.mkdir()
    for index in range(number):
        source = dataset / "imagesTr" / f"case_{index % 5}_0000.nii.gz"
        (images / f"case_{index:04}_0000.nii.gz").write_bytes(source.read_bytes())
    return folder / "model", images


def measure(model: Path, images: Path, folder: Path, arguments: argparse.Namespace) -> list[dict]:
    """Segment the images with each choice of devices.

    Args:
        model: Model folder.
        images: Folder of the images.
        folder: Folder for label maps.
        arguments: Devices, repetitions and settings.

    Returns:
        A row for each choice of devices.

    Raises:
        InputError: Label maps of two choices differ.
    """
    rows, expected = [], None
    for choice in arguments.devices:
        seconds, loading = [], []
        load_before = round(os.getloadavg()[0], 2)
        for repetition in range(arguments.repetitions + (not rows)):
            output = folder / f"output-{len(rows)}-{repetition}"
            started = time.perf_counter()
            record = scanseg.predict_cohort(model, images, output, devices=choice.split(","), progress=False)
            total = time.perf_counter() - started
            if rows or repetition:
                seconds.append(record.seconds)
                loading.append(total - record.seconds)
            found = read_label_maps(output, record)
            if expected is not None and found != expected:
                raise InputError(f"{choice}: label maps differ from those of {arguments.devices[0]}")
            expected = found
        rates = [len(record.cases) / each for each in seconds]
        rows.append(
            {
                "entry": f"cohort/{choice}",
                "num_devices": len(choice.split(",")),
                "num_cases": len(record.cases),
                "seconds": seconds,
                "cases_per_second": statistics.median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "loading_seconds": statistics.median(loading),
                "speedup": statistics.median(rates)
                / (rows[0]["cases_per_second"] if rows else statistics.median(rates)),
                "device": record.device,
                "recipe": record.recipe,
                "precision": record.precision,
                "load": load_before,
            }
        )
    return rows


def read_label_maps(output: Path, record: PredictionRecord) -> dict[str, bytes]:
    """Return the content of the label maps by case.

    Args:
        output: Folder of the label maps.
        record: Record of their prediction.
    """
    return {case.case: (output / str(case.label_map)).read_bytes() for case in record.cases}


def cost_per_thousand(cases_per_second: float, price: float) -> float:
    """Return the price of 1000 cases.

    Args:
        cases_per_second: Throughput of a machine.
        price: Price of the machine per hour.
    """
    return 1000 / cases_per_second / 3600 * price


def table(record: dict, *, price: float | None) -> str:
    """Return the rows of a record as a table in Markdown.

    Args:
        record: The record.
        price: Price of the machine per hour. `None`: no costs.
    """
    lines = [
        "| devices | cases per second | speedup | hours per 1000 cases | cost per 1000 cases |",
        "|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        rate = row["cases_per_second"]
        cost = "-" if price is None else f"{cost_per_thousand(rate, price):.2f}"
        hours = 1000 / rate / 3600
        lines.append(f"| {row['device']} | {rate:.3f} | {row['speedup']:.2f} | {hours:.2f} | {cost} |")
    return "\n".join(lines)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cohort", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument(
        "--devices", nargs="+", default=["cuda:0", "cuda:0,cuda:1"], help="choices of devices"
    )
    parser.add_argument("--synthetic", type=int, default=0, help="number of synthetic volumes")
    parser.add_argument("--repetitions", type=int, default=3, help="counted predictions of each choice")
    parser.add_argument("--table", type=Path, help="print the table of this record")
    parser.add_argument("--price", type=float, help="price of the machine per hour")
    parser.add_argument("--output", "-o", type=Path)
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    arguments = parser.parse_args(words)
    if arguments.table is None and arguments.images is None and not arguments.synthetic:
        parser.error("expected MODEL and IMAGES, --synthetic or --table")
    return arguments


if __name__ == "__main__":  # worker processes import this module too
    sys.exit(main())
