"""Sweep of U-Nets over memory formats and norms.

Usage: python -m benchmarks.sweeps.unet_layouts RESULT.json [SECONDS]

It measures training step, inference, memory and kernels, in both memory formats, with PyTorch's norm and with the fused
norm. Steps are forward, the loss on every stage and backward, replayed as a CUDA graph as in training. No row starts
after SECONDS (85).
"""

import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measuring import Call, capture, measure
from benchmarks.network_entries import ABDOMEN, ENDOSCOPY, ImageShape, build_network
from scanseg.networks import ConvolutionalNetwork, place_network, set_channels_last
from scanseg.ops.instance_norm import BACKENDS as NORM_BACKENDS
from scanseg.ops.upsample_join import BACKENDS as JOIN_BACKENDS
from scanseg.specs import DatasetSpec, LossSpec
from scanseg.training.losses import segmentation_loss

GPU = torch.device("cuda")
ONE_ENDOSCOPY = ImageShape(
    1, ENDOSCOPY.channels, ENDOSCOPY.patch_size, ENDOSCOPY.spacing, ENDOSCOPY.num_classes
)


@dataclass(frozen=True)
class Row:
    """A network at one input, in one memory format and precision."""

    network: str
    shape: ImageShape
    channels_last: bool = True
    fused: bool = True
    dtype: torch.dtype | None = torch.bfloat16
    """Dtype of autocast. `None`: TF32."""
    profiled: bool = False

    def __str__(self) -> str:
        dtype = "tf32" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        layout, norm = "last" if self.channels_last else "first", "fused" if self.fused else "pytorch"
        return f"{self.network} {self.shape} {dtype} {layout} {norm}"


ROWS = [
    Row("xlstm-unet-enc", ABDOMEN, profiled=True),
    Row("xlstm-unet-enc", ABDOMEN, channels_last=False, fused=False, profiled=True),
    Row("xlstm-unet-enc", ENDOSCOPY, profiled=True),
    Row("xlstm-unet-enc", ENDOSCOPY, channels_last=False, fused=False),
    Row("xlstm-unet-enc", ONE_ENDOSCOPY),
    Row("xlstm-unet-bot", ABDOMEN, profiled=True),
    Row("plain-unet", ABDOMEN, profiled=True),
    Row("plain-unet", ENDOSCOPY, profiled=True),
    Row("xlstm-unet-bot", ENDOSCOPY),
    Row("xlstm-unet-bot", ABDOMEN, channels_last=False),
    Row("xlstm-unet-bot", ABDOMEN, fused=False),
    Row("xlstm-unet-bot", ABDOMEN, channels_last=False, fused=False),
    Row("plain-unet", ABDOMEN, channels_last=False, fused=False),
    Row("plain-unet", ENDOSCOPY, channels_last=False, fused=False),
    Row("xlstm-unet-bot", ABDOMEN, dtype=torch.float16),
    Row("xlstm-unet-bot", ABDOMEN, dtype=None),
    Row("xlstm-unet-bot", ABDOMEN, dtype=None, channels_last=False),
    Row("xlstm-unet-enc", ONE_ENDOSCOPY, channels_last=False, fused=False),
]
"""The most important first."""


@contextmanager
def without_triton() -> Iterator[None]:
    """Use PyTorch's norm and upsampling in this block."""
    kept = [(table, table["triton"]) for table in (NORM_BACKENDS, JOIN_BACKENDS)]
    for table, backend in kept:
        table["triton"] = backend._replace(by_name_only=True)
    try:
        yield
    finally:
        for table, backend in kept:
            table["triton"] = backend


def train(
    network: nn.Module, images: Tensor, label_maps: Tensor, *, dataset: DatasetSpec, row: Row
) -> Tensor:
    """Compute the gradients of a batch."""
    network.zero_grad(set_to_none=True)
    with torch.autocast("cuda", dtype=row.dtype or torch.bfloat16, enabled=row.dtype is not None):
        outputs: Sequence[Tensor] = network.train()(images)
    loss = segmentation_loss(outputs, label_maps, spec=LossSpec(), dataset=dataset)
    (loss * 2.0**10 if row.dtype == torch.float16 else loss).backward()
    return loss.detach()


@torch.no_grad()
def infer(network: nn.Module, images: Tensor, *, row: Row) -> Tensor:
    """Return the logits."""
    with torch.autocast("cuda", dtype=row.dtype or torch.bfloat16, enabled=row.dtype is not None):
        logits: Tensor = network.eval()(images)
    return logits


def kernels(call: Call, *, count: int = 15) -> list[tuple[float, int, str]]:
    """Return milliseconds, launches and names of the slowest kernels of a call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
    return [(event.self_device_time_total / 1e3, event.count, event.key[:110]) for event in events[:count]]


def run(row: Row) -> dict[str, object]:
    """Measure a row."""
    network = place_network(build_network(row.network, row.shape), GPU)
    assert isinstance(network, ConvolutionalNetwork)
    set_channels_last(network, channels_last=row.channels_last)
    shape = row.shape
    generator = torch.Generator(GPU).manual_seed(0)
    images = torch.randn(shape.batch, shape.channels, *shape.patch_size, generator=generator, device=GPU)
    size = (shape.batch, *shape.patch_size)
    label_maps = torch.randint(shape.num_classes, size, generator=generator, device=GPU)
    labels = {"background": 0} | {f"label {number}": number for number in range(1, shape.num_classes)}
    dataset = DatasetSpec(name="noise", channel_names=("MRI",), labels=labels, file_ending=".nii.gz")
    step = partial(train, network, images, label_maps, dataset=dataset, row=row)
    begin = time.perf_counter()
    eager = measure(step, GPU, seconds=0.1, flush=False)
    result: dict[str, object] = {"row": str(row), "peak_gib": eager.peak_gib, "eager_ms": eager.median_ms}
    result["warm_up_s"] = time.perf_counter() - begin
    if row.profiled:
        result["kernels"] = kernels(step)
    with torch.no_grad():
        lone = capture(partial(infer, network, images[:1], row=row))
        result["inference_1_ms"] = measure(lone, GPU, seconds=0.1, flush=False).median_ms
        del lone
    result["inference_ms"] = measure(
        partial(infer, network, images, row=row), GPU, seconds=0.1, flush=False
    ).median_ms
    replay = capture(step)
    result["step_ms"] = measure(replay, GPU, seconds=0.3, flush=False).median_ms
    result["loss"] = float(step())
    return result


def attempt(row: Row) -> dict[str, object]:
    """Measure a row, also if it fails."""
    try:
        if row.fused:
            return run(row)
        with without_triton():
            return run(row)
    except Exception as error:
        return {"row": str(row), "failed": f"{type(error).__name__}: {str(error)[:300]}"}


def main() -> None:
    """Run the sweep."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 85.0
    begin, rows = time.perf_counter(), []
    for row in ROWS:
        if time.perf_counter() - begin > seconds:
            print(f"left out: {row}")
            continue
        rows.append(attempt(row))
        shown = {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in rows[-1].items()
            if key != "kernels"
        }
        print(json.dumps(shown), flush=True)
        for milliseconds, count, name in rows[-1].get("kernels", ()):
            print(f"    {milliseconds:8.3f} ms {count:5d} {name}")
        gc.collect()
        torch.cuda.empty_cache()
    if len(sys.argv) > 1:
        record = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
        Path(sys.argv[1]).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
