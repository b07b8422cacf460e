"""Entry of the loss: Dice and cross-entropy of one output."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.entries import DTYPES, Entry, PrecisionName, TimedCall, Workload
from benchmarks.gates import GateReport, check_operator
from benchmarks.roofline import Work
from scanseg.ops._support.dispatch import choose
from scanseg.ops.segmentation_sums import BACKENDS, segmentation_sums
from scanseg.specs import DatasetSpec, LossSpec
from scanseg.training.losses import segmentation_loss

_SEED = 0


class LogitsShape(NamedTuple):
    """Size of the logits of a loss."""

    batch: int
    output: int
    depth: int
    height: int
    width: int


LOSS_SHAPE = LogitsShape(2, 14, 48, 160, 224)
"""Highest resolution of xLSTM-UNet's patches of AMOS and Abdomen MRI. All maps of a step are alive there."""


def loss_entry() -> Entry:
    """Return the entry of the loss."""
    return Entry(
        name=f"loss/{'x'.join(map(str, LOSS_SHAPE))}/bfloat16",
        precision="bfloat16",
        device="cuda",
        build=partial(_build_loss, LOSS_SHAPE, "bfloat16"),
        check=partial(_check_loss, LOSS_SHAPE, "bfloat16"),
        check_key=f"loss {LOSS_SHAPE} bfloat16",
    )


def _tiny_logits(shape: LogitsShape) -> LogitsShape:
    return shape._replace(depth=3, height=10, width=14)


def _loss_inputs(shape: LogitsShape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make logits with channels last, and a label map of bytes."""
    generator = torch.Generator(device).manual_seed(_SEED)
    logits = (3 * torch.randn(shape, generator=generator, device=device)).to(
        dtype, memory_format=torch.channels_last_3d
    )
    size = (shape.batch, *shape[2:])
    return logits, torch.randint(shape.output, size, generator=generator, device=device).to(torch.uint8)


def _build_loss(shape: LogitsShape, precision: PrecisionName, device: torch.device, tiny: bool) -> Workload:  # noqa: FBT001
    """Build the loss of one output, also by PyTorch's operators.

    The loss used PyTorch's operators before `segmentation_sums`.
    """
    shape, dtype = (_tiny_logits(shape) if tiny else shape), DTYPES[precision]
    logits, label_map = _loss_inputs(shape, dtype, device)
    labels = {"background": 0} | {f"label {number}": number for number in range(1, shape.output)}
    dataset = DatasetSpec(name="noise", channel_names=("MRI",), labels=labels, file_ending=".nii.gz")
    loss = partial(segmentation_loss, spec=LossSpec(), dataset=dataset)
    groups = [(number,) for number in range(shape.output)]

    def forward() -> Tensor:
        with torch.no_grad():
            return loss([logits], label_map)

    def forward_and_backward() -> Tensor:
        leaf = logits.detach().requires_grad_()
        return torch.autograd.grad(loss([leaf], label_map), leaf)[0]

    def by_pytorch() -> Tensor:
        leaf = logits.detach().requires_grad_()
        sums = segmentation_sums(
            leaf, label_map, groups=groups, regions=False, first_output=1, backend="reference"
        )
        dice = (2 * sums.overlap / (sums.predicted + sums.actual + 1e-5)).mean()
        return torch.autograd.grad(sums.cross_entropy / label_map.numel() - dice, leaf)[0]

    once = logits.numel() * dtype.itemsize
    read = once + label_map.numel()
    serving = choose("segmentation_sums", BACKENDS, None, logits, label_map)
    return Workload(
        calls={
            "forward": TimedCall(forward, Work(read), flush=True),
            "forward+backward": TimedCall(forward_and_backward, Work(2 * read + once), flush=True),
            "forward+backward-pytorch": TimedCall(by_pytorch, Work(2 * read + once), flush=True),
        },
        settings={
            "shape": shape,
            "backend": next(name for name, backend in BACKENDS.items() if backend is serving),
        },
    )


def _check_loss(shape: LogitsShape, precision: PrecisionName, device: torch.device, tiny: bool) -> GateReport:  # noqa: FBT001
    shape = _tiny_logits(shape) if tiny else shape
    logits, label_map = _loss_inputs(shape, DTYPES[precision], device)
    groups = [(number,) for number in range(shape.output)]

    def operator(tensors: Mapping[str, Tensor], backend: str | None) -> Tensor:
        sums = segmentation_sums(tensors["logits"], label_map, groups=groups, regions=False, backend=backend)
        return torch.cat((sums.overlap[0], sums.predicted[0], sums.cross_entropy[None]))

    generator = torch.Generator(device).manual_seed(_SEED + 1)
    return check_operator(
        partial(operator, backend=None),
        partial(operator, backend="reference"),
        {"logits": logits},
        grad_output=torch.randn(2 * shape.output + 1, generator=generator, device=device),
        tf32=False,
    )
