"""Time whole predictions on a CPU: from the start of the process to the label map on disk.

Usage: python -m benchmarks.whole_prediction [--threads 2] [-o benchmarks/results/NAME.json]

`scanseg predict` segments one small image in a new process, with weights that were not trained: a colour picture of
224x224 pixels, and a volume of 36x50x35 voxels. The plans are those of the recipes for such data. `plain-unet` is
nnU-Net's PlainConvUNet in the same pipeline. Files are in the cache of the system, as after a first call. The record
has the load of the machine before each row. Measure on an idle machine.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image as Picture

import scanseg
from benchmarks.machine import describe_run
from benchmarks.running import summary
from scanseg.models import ModelFolder, network_of

RECIPES = {
    "picture": ("msvm-unet", "xlstm-unet-2d", "plain-unet-2d"),
    "volume": ("xlstm-unet", "plain-unet", "xlstm-unet-fast"),
}
SIZES = {"picture": "3x224x224", "volume": "1x36x50x35"}
ENDINGS = {"picture": ".png", "volume": ".nii.gz"}


def main(words: Sequence[str] | None = None) -> int:
    """Measure all rows, write the record, and return the exit code."""
    arguments = _parse(words)
    torch.set_num_threads(arguments.threads)
    record = {
        **describe_run(torch.device("cpu"), commit=arguments.commit),
        "settings": {},
        "golden": [],
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for kind, recipes in RECIPES.items():
            dataset = write_dataset(Path(folder) / kind, kind)
            for recipe in recipes:
                if arguments.recipes is not None and recipe not in arguments.recipes:
                    continue
                record["rows"].append(measure(dataset, recipe, kind=kind, arguments=arguments))
                print(summary(record["rows"][-1]), flush=True)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row["status"] != "measured" for row in record["rows"]) else 0


def measure(dataset: Path, recipe: str, *, kind: str, arguments: argparse.Namespace) -> dict:
    """Predict the image several times, and return the row.

    The first call is not counted: it fills the caches of the system and compiles the kernels of numba.
    """
    plan = scanseg.make_plan(dataset, recipe=recipe, num_workers=0, progress=False)
    torch.manual_seed(0)
    model = dataset.parent / f"model-{recipe}"
    ModelFolder.create(model, plan).write_weights(network_of(plan).state_dict())
    row = {"entry": f"whole-prediction/{SIZES[kind]}/{recipe}", "call": "process", "precision": "float32"}
    row["settings"] = {
        "patch_size": plan.sampling.patch_size,
        "threads": arguments.threads,
        "load": [round(load, 2) for load in os.getloadavg()],
    }
    output = dataset.parent / "output"
    words = [
        "predict",
        str(model),
        str(dataset / "imagesTr" / f"case_0_0000{ENDINGS[kind]}"),
        "-o",
        str(output),
    ]
    seconds, cpu_seconds, bytes_held = [], [], []
    for _ in range(arguments.repetitions + 1):
        shutil.rmtree(output, ignore_errors=True)
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "scanseg", *words, "--device", "cpu"],
            env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(usage.ru_utime + usage.ru_stime)
        bytes_held.append(1024 * usage.ru_maxrss)
        if process.returncode or not (output / f"case_0{ENDINGS[kind]}").is_file():
            return {**row, "status": "failed", "reason": f"exit code {process.returncode}"}
    times = sorted(1e3 * each for each in seconds[1:])
    timing = {
        "median_ms": statistics.median(times),
        "p20_ms": float(np.quantile(times, 0.2)),
        "p80_ms": float(np.quantile(times, 0.8)),
        "num_calls": len(times),
        "peak_gib": max(bytes_held) / 2**30,
    }
    row["cpu_seconds"] = statistics.median(cpu_seconds[1:])
    return {**row, "status": "measured", "eager": timing, "replay": None, "floor_ms": None}


def write_dataset(folder: Path, kind: str) -> Path:
    """Write five noisy images of a bright box.

    Args:
        folder: New folder of the data set.
        kind: `picture` or `volume`.
    """
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(5):
        shape = (224, 224) if kind == "picture" else (36, 50, 35)
        labels = np.zeros(shape, np.uint8)
        labels[tuple(slice(size // 4, size // 2) for size in shape)] = 1
        image, label_map = (folder / part / f"case_{number}" for part in ("imagesTr", "labelsTr"))
        if kind == "picture":
            values = rng.normal(100, 20, (*shape, 3)) + 60 * labels[..., None]
            Picture.fromarray(values.clip(0, 255).astype(np.uint8)).save(f"{image}_0000.png")
            Picture.fromarray(labels).save(f"{label_map}.png")
        else:
            values = rng.normal(100, 20, shape) + 60 * labels
            nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), f"{image}_0000.nii.gz")
            nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), f"{label_map}.nii.gz")
    channels = ("R", "G", "B") if kind == "picture" else ("MRI",)
    description = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, "box": 1},
        "numTraining": 5,
        "file_ending": ENDINGS[kind],
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole_prediction",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=2, help="number of CPU threads")
    parser.add_argument("--repetitions", type=int, default=5, help="counted predictions of each row")
    parser.add_argument("--recipes", nargs="+", help="recipes to measure, such as msvm-unet")
    parser.add_argument("--output", "-o", type=Path)
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
