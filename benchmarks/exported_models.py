"""Compare exported models with PyTorch on the CPU: size, time, label maps and Dice.

Usage: python -m benchmarks.exported_models MODEL[=IMAGES[=LABELS]] ... --threads 2 -o benchmarks/results/NAME.json
       python -m benchmarks.exported_models --table benchmarks/results/NAME.json

MODEL is a model folder, or a plan, whose network has its initial weights. Each model is exported to ONNX. A copy with
convolutions in int8 is calibrated on windows of the images (random ones without images). One window passes through
each network, in several turns. With images, all of them are predicted, and the voxels with another label than by
PyTorch are counted. With labels, the label maps are scored. The load of the machine is recorded: run this again on an
idle one. `--table` prints the rows of a record for docs/onnx.md.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import scanseg
from benchmarks.machine import describe_run
from scanseg.cores import prepare_threads
from scanseg.imaging import read_label_map
from scanseg.inference import EXPORTED_FILE, Predictor, load
from scanseg.interop import export_onnx
from scanseg.models import ModelFolder
from scanseg.specs import Plan

RUNTIMES = ("torch", "onnxruntime", "openvino", "onnxruntime int8", "openvino int8")
CALIBRATION_WINDOWS = 16
TURNS = 3
"""Turns of each runtime, so that a load of the machine hits all of them."""


@dataclass(frozen=True)
class Subject:
    """A model, and images to predict."""

    model: Path
    images: Path | None
    labels: Path | None


def main(words: Sequence[str] | None = None) -> int:
    """Measure the models, or print the table of a record."""
    arguments = _parse(words)
    if arguments.table is not None:
        print(make_table(json.loads(arguments.table.read_text(encoding="utf-8"))))
        return 0
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    record = describe_run(torch.device("cpu"), commit=arguments.commit)
    record["versions"] |= {name: metadata.version(name) for name in ("onnx", "onnxruntime", "openvino")}
    record |= {"repeats": arguments.repeats, "load_before": os.getloadavg(), "models": []}
    for text in arguments.subjects:
        paths = [Path(part) for part in text.split("=")]
        subject = Subject(*(paths + [None] * (3 - len(paths))))
        record["models"].append(measure(subject, repeats=arguments.repeats))
        record["load_after"] = os.getloadavg()
        if arguments.output is not None:
            arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(make_table(record))
    return 0


def measure(subject: Subject, *, repeats: int) -> dict[str, object]:
    """Return size, times, agreement and Dice of a model by each runtime."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = _model_folder(subject.model, folder)
        begin = time.monotonic()
        document = export_onnx(model, folder / "onnx")
        export_seconds = time.monotonic() - begin
        reference = load(model, device="cpu", precision="float32")
        calibration = list(_windows(reference, subject.images, CALIBRATION_WINDOWS))
        _quantize(folder / "onnx", folder / "int8", calibration)
        predictors = {
            "torch": reference,
            "onnxruntime": load(folder / "onnx", runtime="onnxruntime"),
            "openvino": load(folder / "onnx", runtime="openvino"),
            "onnxruntime int8": load(folder / "int8", runtime="onnxruntime"),
            "openvino int8": load(folder / "int8", runtime="openvino"),
        }
        rows = {name: {"bytes": _size(name, model, folder)} for name in RUNTIMES}
        for name, passes in _time_windows(predictors, calibration[0][None], repeats=repeats).items():
            rows[name]["seconds_per_window"] = statistics.median(wall for wall, _ in passes)
            rows[name]["fastest_seconds"] = min(wall for wall, _ in passes)
            rows[name]["processor_seconds_per_window"] = statistics.median(used for _, used in passes)
        if subject.images is not None:
            _compare_label_maps(predictors, subject, folder, rows)
        return {
            "name": subject.model.stem,
            "recipe": reference.plan.recipe,
            "network": reference.plan.network.kind,
            "window": [reference.plan.num_inputs, *reference.plan.sampling.patch_size],
            "parameters": sum(parameter.numel() for parameter in reference.network.parameters()),
            "is_trained": subject.model.is_dir(),
            "export_seconds": round(export_seconds, 1),
            "largest_difference": document.networks[0].largest_difference,
            "largest_logit": document.networks[0].largest_logit,
            "runtimes": rows,
        }


def _model_folder(path: Path, folder: Path) -> Path:
    """Return a model folder, made with initial weights if the path is a plan."""
    if path.is_dir():
        return path
    torch.manual_seed(0)
    made = ModelFolder.create(folder / "model", Plan.read(path))
    made.write_weights(made.build_network().state_dict())
    return made.path


def _windows(predictor: Predictor, images: Path | None, count: int) -> Iterator[np.ndarray]:
    """Yield windows of preprocessed images, or of noise."""
    rng, patch = np.random.default_rng(0), predictor.plan.sampling.patch_size
    if images is None:
        for _ in range(count):
            yield rng.standard_normal((predictor.plan.num_inputs, *patch), dtype=np.float32)
        return
    paths = sorted(path for path in images.iterdir() if path.is_file() and path.suffix != ".json")
    for number in range(count):
        array = predictor.prepare(paths[number % len(paths)]).array
        lifted = (1,) * (3 - len(patch)) + tuple(patch)
        margins = [max(0, size - have) for size, have in zip(lifted, array.shape[1:], strict=True)]
        padded = np.pad(array, [(0, 0), *((0, margin) for margin in margins)])
        starts = [
            rng.integers(0, have - size + 1) for size, have in zip(lifted, padded.shape[1:], strict=True)
        ]
        box = tuple(slice(start, start + size) for start, size in zip(starts, lifted, strict=True))
        yield padded[(slice(None), *box)].reshape(len(array), *patch)


def _quantize(source: Path, target: Path, windows: Sequence[np.ndarray]) -> None:
    """Write a copy of an exported model with convolutions in int8."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._rest = iter(windows)

        def get_next(self) -> dict[str, np.ndarray] | None:
            window = next(self._rest, None)
            return None if window is None else {"windows": window[None]}

    shutil.copytree(source, target)
    content = json.loads((target / EXPORTED_FILE).read_text(encoding="utf-8"))
    for network in content["model"]["networks"]:
        path = target / network["file"]
        quantization.quantize_static(
            source / network["file"],
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
        )
        network["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (target / EXPORTED_FILE).write_text(json.dumps(content), encoding="utf-8")


def _size(name: str, model: Path, folder: Path) -> int:
    """Return the bytes of the weights, or of the networks in ONNX format."""
    if name == "torch":
        return sum(path.stat().st_size for path in model.glob("model.safetensors"))
    exported = folder / ("int8" if name.endswith("int8") else "onnx")
    return sum(path.stat().st_size for path in exported.glob("*.onnx"))


@torch.inference_mode()
def _time_windows(
    predictors: dict[str, Predictor], window: np.ndarray, *, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of each pass of one window, and the processor time of all its threads.

    Each runtime has several turns. The first pass of a turn is not timed: threads of the previous runtime may spin.
    """
    passes: dict[str, list[tuple[float, float]]] = {name: [] for name in predictors}
    for _ in range(TURNS):
        for name, predictor in predictors.items():
            given = torch.from_numpy(window) if name == "torch" else window
            predictor.networks.mean(given)
            for _ in range(math.ceil(repeats / TURNS)):
                begin, used = time.perf_counter(), time.process_time()
                predictor.networks.mean(given)
                passes[name].append((time.perf_counter() - begin, time.process_time() - used))
    return passes


def _compare_label_maps(
    predictors: dict[str, Predictor], subject: Subject, folder: Path, rows: dict[str, dict[str, object]]
) -> None:
    """Predict all images, and add agreement with PyTorch, seconds and Dice to the rows."""
    reference = folder / "predictions torch"
    for name, predictor in predictors.items():
        output = folder / f"predictions {name}"
        record = predictor.predict_folder(subject.images, output)
        equal = total = 0
        for case in record.cases:
            found, expected = (read_label_map(each / case.label_map).array[0] for each in (output, reference))
            equal, total = equal + int((found == expected).sum()), total + found.size
        rows[name] |= {"cases": len(record.cases), "voxels": total, "different_voxels": total - equal}
        rows[name]["seconds_per_case"] = record.seconds / len(record.cases)
        if subject.labels is not None:
            report = scanseg.evaluate(
                output, subject.labels, only_predicted=True, num_workers=0, progress=False
            )
            rows[name]["dice"] = report.summary.mean_over_cases.dice


def make_table(record: dict[str, object]) -> str:
    """Return a record as a Markdown table."""
    lines = [
        "| network, window | runtime | MB | time (ms) | processor time (ms) | voxels as by PyTorch (%) | Dice |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in record["models"]:
        window = "x".join(map(str, model["window"][1:]))
        state = "trained" if model["is_trained"] else "initial weights"
        for name, row in model["runtimes"].items():
            first = f"{model['recipe']}, {window}, {state}" if name == "torch" else ""
            voxels = row.get("voxels")
            share = "" if voxels is None else f"{100 * (1 - row['different_voxels'] / voxels):.4f}"
            dice = f"{row['dice']:.4f}" if row.get("dice") is not None else ""
            times = (row["seconds_per_window"], row["processor_seconds_per_window"])
            milliseconds = " | ".join(f"{1000 * seconds:.0f}" for seconds in times)
            lines.append(
                f"| {first} | {name} | {row['bytes'] / 1e6:.1f} | {milliseconds} | {share} | {dice} |"
            )
    return "\n".join(lines)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="MODEL[=IMAGES[=LABELS]]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--commit", help="commit of the code, if it is no git checkout")
    parser.add_argument("--table", type=Path, help="record whose table is printed")
    parser.add_argument("-o", "--output", type=Path, help="record to write")
    return parser.parse_args(words)


def _restart_with_waiting_threads() -> None:
    """Start this script again with the threads of the command `scanseg`, unless that has been done.

    Their variables hold only for libraries that are not imported yet.
    """
    environment = dict(os.environ)
    prepare_threads(environment)
    if environment != os.environ:
        os.execve(sys.executable, sys.orig_argv, environment)


if __name__ == "__main__":
    _restart_with_waiting_threads()
    sys.exit(main())
