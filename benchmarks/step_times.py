"""Time of a training step and of inference, for the networks at the sizes of their data sets.

Usage: python benchmarks/step_times.py --device cuda -o benchmarks/results/NAME.json [--golden FOLDER] [--profile]

With `--golden` the records of the published networks are verified on the device first, and nothing is timed where one
fails.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from scanseg.data.batches import Batch
from scanseg.models.device import autocast_dtype, choose_device
from scanseg.networks import build_network
from scanseg.networks.verification import verify_record
from scanseg.specs import (
    AdamWSpec,
    DatasetSpec,
    MSVMUNetSpec,
    Plan,
    PreprocessingSpec,
    SamplingSpec,
    TrainingSpec,
    XLSTMUNetSpec,
    ZScoreNormalization,
)
from scanseg.training.fit import Fit

HIPPOCAMPUS = {
    "features": (32, 64, 128, 256),
    "strides": ((1, 1, 1),) + ((2, 2, 2),) * 3,
    "kernel_sizes": ((3, 3, 3),) * 4,
}
ENTRIES = {
    "msvm-unet tiny 32x1x224x224": (MSVMUNetSpec(), (224, 224), 32, 4),
    "xlstm-unet enc 9x1x40x56x40": (XLSTMUNetSpec(**HIPPOCAMPUS), (40, 56, 40), 9, 3),
    "xlstm-unet none 9x1x40x56x40": (XLSTMUNetSpec(**HIPPOCAMPUS, sequence_block="none"), (40, 56, 40), 9, 3),
}


def make_fit(spec, patch, batch_size, num_classes, *, device, precision):
    """Build what trains a network, and one batch of noise."""
    labels = {"background": 0} | {f"label {n}": n for n in range(1, num_classes)}
    plan = Plan(
        recipe="benchmark",
        dataset=DatasetSpec(name="noise", channel_names=("MRI",), labels=labels, file_ending=".nii.gz"),
        num_axes=3,
        preprocessing=PreprocessingSpec(normalizations=(ZScoreNormalization(),)),
        sampling=SamplingSpec(patch_size=patch, batch_size=batch_size),
        augmentation=(),
        network=spec,
        training=TrainingSpec(optimizer=AdamWSpec()),
    )
    torch.manual_seed(0)
    network = build_network(spec, in_channels=1, num_classes=num_classes, patch_size=patch).to(device)
    images = torch.randn(batch_size, 1, *patch, device=device)
    label_maps = torch.randint(num_classes, (batch_size, *patch), device=device, dtype=torch.uint8)
    fit = Fit(plan, network, device=device, autocast_dtype=autocast_dtype(device, precision))
    return fit, Batch(images, label_maps)


def measure(call: Callable[[], object], *, device: torch.device, seconds: float = 1.5) -> dict[str, float]:
    """Warm up, then time single calls: median, 20 % and 80 % in ms, peak memory in GiB."""
    for _ in range(3):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    quantiles = statistics.quantiles(times, n=5)
    result = {
        "median_ms": 1e3 * statistics.median(times),
        "p20_ms": 1e3 * quantiles[0],
        "p80_ms": 1e3 * quantiles[3],
    }
    if device.type == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return result


def profile(call: Callable[[], object]) -> str:
    """Return the kernels that take the most time."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
    return profiler.key_averages().table(
        sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60
    )


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", "-o", type=Path)
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--precisions", nargs="+", default=["float32", "auto"])
    parser.add_argument("--entries", nargs="+", default=list(ENTRIES), choices=list(ENTRIES))
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    record: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": [],
    }
    for path in sorted(arguments.golden.glob("*.safetensors")) if arguments.golden else ():
        result = verify_record(path, dtype=torch.float32, device=device)
        print(path.name, result)
        if not result.passed:
            print("a record does not verify: nothing is timed")
            return 1
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    rows = []
    for name in arguments.entries:
        for precision in arguments.precisions:
            fit, batch = make_fit(*ENTRIES[name], device=device, precision=precision)
            step = partial(fit.step, batch, lr=1e-4)
            training = measure(step, device=device)
            inference = measure(partial(fit.logits, batch), device=device)
            rows.append({"name": name, "precision": precision, "step": training, "inference": inference})
            print(json.dumps(rows[-1]), flush=True)
            if arguments.profile and precision == "auto" and device.type == "cuda":
                print(profile(step), flush=True)
            del fit, batch, step
    record["rows"] = rows
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
