"""Entries of networks: training steps and inference of ours and of baselines.

All networks get the same inputs. A step is forward, the loss (Dice and cross-entropy, on every stage with deep
supervision) and backward, without the optimizer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.baselines import BASELINES
from benchmarks.entries import DTYPES, Entry, PrecisionName, TimedCall, Workload
from benchmarks.gates import GateReport, check_network
from scanseg.networks import MSVMUNet, PlainUNet, XLSTMUNet, place_network
from scanseg.planning.topology import Topology, choose_topology
from scanseg.specs import DatasetSpec, LossSpec
from scanseg.training.losses import segmentation_loss

_SEED = 0


@dataclass(frozen=True)
class ImageShape:
    """A batch of images, and the number of classes to segment.

    Attributes:
        batch: Number of images.
        channels: Number of channels of an image.
        patch_size: Voxels along (z,) y, x.
        spacing: Spacing from which the stages are planned.
        num_classes: Number of classes, including background.
        small: Build networks of few features, for tests.
    """

    batch: int
    channels: int
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    num_classes: int
    small: bool = False

    def __str__(self) -> str:
        return "x".join(map(str, (self.batch, self.channels, *self.patch_size)))

    def tiny(self) -> "ImageShape":
        """Return a small size for tests, with the same axes."""
        size = (32, 32) if len(self.patch_size) == 2 else (8, 16, 16)
        return ImageShape(2, self.channels, size, self.spacing, 3, small=True)


SYNAPSE = ImageShape(32, 3, (224, 224), (1.0, 1.0), 9)
ENDOSCOPY = ImageShape(13, 3, (384, 640), (1.0, 1.0), 8)
MICROSCOPY = ImageShape(12, 3, (512, 512), (1.0, 1.0), 3)
ABDOMEN = ImageShape(2, 1, (48, 160, 224), (2.0, 1.0, 1.0), 14)


PICTURES = ImageShape(2, 3, (224, 224), (1.0, 1.0), 9)
HIPPOCAMPUS = ImageShape(2, 1, (40, 56, 40), (1.0, 1.0, 1.0), 3)
"""Small inputs, for CPUs."""


@dataclass(frozen=True)
class NetworkRow:
    """A network at one input in some precisions.

    Attributes:
        name: A key of `NETWORKS` or of `BASELINES`.
        shape: The input.
        precisions: Each gives one entry.
        device: Kind of device of the entries.
    """

    name: str
    shape: ImageShape
    precisions: tuple[PrecisionName, ...] = ("bfloat16",)
    device: Literal["cuda", "cpu"] = "cuda"


def _with_batch(shape: ImageShape, batch: int) -> ImageShape:
    return ImageShape(batch, shape.channels, shape.patch_size, shape.spacing, shape.num_classes)


ROWS = (
    NetworkRow("msvm-unet", SYNAPSE, ("bfloat16", "tf32")),
    NetworkRow("xlstm-unet-enc", ENDOSCOPY),
    NetworkRow("xlstm-unet-enc", _with_batch(ENDOSCOPY, 1)),
    NetworkRow("xlstm-unet-enc", _with_batch(ENDOSCOPY, 2)),
    NetworkRow("xlstm-unet-enc", MICROSCOPY),
    NetworkRow("xlstm-unet-bot", ENDOSCOPY),
    NetworkRow("xlstm-unet-enc", ABDOMEN, ("bfloat16", "float16")),
    NetworkRow("xlstm-unet-bot", ABDOMEN),
    NetworkRow("plain-unet", ENDOSCOPY),
    NetworkRow("plain-unet", ABDOMEN),
    NetworkRow("nnunet-plain-conv-unet", ENDOSCOPY),
    NetworkRow("nnunet-plain-conv-unet", ABDOMEN),
    NetworkRow("nnunet-plain-conv-unet", SYNAPSE),
    NetworkRow("monai-segresnet", ABDOMEN),
    NetworkRow("monai-swin-unetr", ABDOMEN),
    NetworkRow("monai-segresnet", ENDOSCOPY),
    NetworkRow("monai-swin-unetr", ENDOSCOPY),
    NetworkRow("monai-segresnet", SYNAPSE),
    NetworkRow("monai-swin-unetr", SYNAPSE),
    *(
        NetworkRow(name, PICTURES, ("float32",), "cpu")
        for name in ("msvm-unet", "xlstm-unet-enc", "xlstm-unet-bot", "plain-unet", "nnunet-plain-conv-unet")
    ),
    *(
        NetworkRow(name, HIPPOCAMPUS, ("float32",), "cpu")
        for name in ("xlstm-unet-enc", "xlstm-unet-bot", "plain-unet", "nnunet-plain-conv-unet")
    ),
)
"""The most important first, since a run ends at its time limit."""


def network_entries() -> tuple[Entry, ...]:
    """Return the entries of all networks."""
    return tuple(_entry(row, precision) for row in ROWS for precision in row.precisions)


def _entry(row: NetworkRow, precision: PrecisionName) -> Entry:
    ours = row.name in NETWORKS
    return Entry(
        name=f"{row.name}/{row.shape}/{precision}",
        precision=precision,
        device=row.device,
        build=partial(_build, row, precision),
        check=partial(_check, row, precision) if ours else None,
        check_key=f"{row.name} {row.shape.patch_size} {precision}",
    )


def _msvm_unet(shape: ImageShape) -> nn.Module:
    if shape.small:
        return MSVMUNet(shape.channels, shape.num_classes, dims=(8, 16, 24, 32), depths=(1, 1, 1, 1))
    return MSVMUNet(shape.channels, shape.num_classes)


def _xlstm_unet(shape: ImageShape, variant: Literal["enc", "bot"]) -> nn.Module:
    topology = choose_topology(shape.spacing, shape.patch_size)
    return XLSTMUNet(
        shape.channels,
        shape.num_classes,
        patch_size=shape.patch_size,
        strides=topology.strides,
        kernel_sizes=topology.kernel_sizes,
        features=_features(shape, topology),
        variant=variant,
    )


def _plain_unet(shape: ImageShape) -> nn.Module:
    topology = choose_topology(shape.spacing, shape.patch_size)
    return PlainUNet(
        shape.channels,
        shape.num_classes,
        strides=topology.strides,
        kernel_sizes=topology.kernel_sizes,
        features=_features(shape, topology),
    )


def _features(shape: ImageShape, topology: Topology) -> tuple[int, ...] | None:
    """Return the features of the stages. `None`: the default of the network."""
    return tuple(4 * 2**stage for stage in range(len(topology.strides))) if shape.small else None


NETWORKS: dict[str, Callable[[ImageShape], nn.Module]] = {
    "msvm-unet": _msvm_unet,
    "xlstm-unet-enc": partial(_xlstm_unet, variant="enc"),
    "xlstm-unet-bot": partial(_xlstm_unet, variant="bot"),
    "plain-unet": _plain_unet,
}


def build_network(name: str, shape: ImageShape) -> nn.Module:
    """Build a network of the table, or a baseline.

    Raises:
        UnavailableError: The package of the baseline is not installed, or it refuses images of this size.
    """
    torch.manual_seed(_SEED)
    if name in NETWORKS:
        return NETWORKS[name](shape)
    topology = choose_topology(shape.spacing, shape.patch_size)
    return BASELINES[name](shape.channels, shape.num_classes, shape.patch_size, topology)


def _check(row: NetworkRow, precision: PrecisionName, device: torch.device, tiny: bool) -> GateReport:  # noqa: FBT001
    shape = row.shape.tiny() if tiny else row.shape
    network = place_network(build_network(row.name, shape), device)
    generator = torch.Generator(device).manual_seed(_SEED)
    images = torch.randn(2, shape.channels, *shape.patch_size, generator=generator, device=device)
    return check_network(network, images, autocast_dtype=_autocast_dtype(precision))


def _autocast_dtype(precision: PrecisionName) -> torch.dtype | None:
    return None if DTYPES[precision] == torch.float32 else DTYPES[precision]


def _build(row: NetworkRow, precision: PrecisionName, device: torch.device, tiny: bool) -> Workload:  # noqa: FBT001
    network, step = make_step(row, precision, device, tiny=tiny)
    images = step.keywords["images"]
    dtype = _autocast_dtype(precision)
    calls = {
        "step": TimedCall(partial(step, network)),
        "inference": TimedCall(partial(_infer, network, images, dtype=dtype)),
    }
    if row.name in NETWORKS:
        calls["step-one-thread"] = TimedCall(partial(_in_one_thread, partial(step, network)), replays=False)
    if len(images) > 1 and row.name in NETWORKS:
        calls["inference-batch-1"] = TimedCall(partial(_infer, network, images[:1], dtype=dtype))
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    shape = row.shape.tiny() if tiny else row.shape
    settings = {"input": tuple(images.shape), "classes": shape.num_classes, "parameters": num_parameters}
    return Workload(calls, settings)


def make_step(
    row: NetworkRow, precision: PrecisionName, device: torch.device, *, tiny: bool
) -> tuple[nn.Module, "partial[Tensor]"]:
    """Build a network and its training step.

    Args:
        row: The network and its input.
        precision: Precision of the step.
        device: Device of both.
        tiny: Shrink both, for tests.

    Returns:
        The network, and a function that takes it or its compiled form, computes the gradients and returns the loss.
    """
    shape = row.shape.tiny() if tiny else row.shape
    network = place_network(build_network(row.name, shape), device)
    generator = torch.Generator(device).manual_seed(_SEED)
    size = (shape.batch, shape.channels, *shape.patch_size)
    images = torch.randn(size, generator=generator, device=device)
    label_maps = torch.randint(
        shape.num_classes, (shape.batch, *shape.patch_size), generator=generator, device=device
    )
    return network, partial(
        _step,
        parameters=tuple(network.parameters()),
        images=images,
        label_maps=label_maps,
        loss=_loss(shape),
        dtype=_autocast_dtype(precision),
    )


def _in_one_thread(step: Callable[[], Tensor]) -> Tensor:
    """Run a step whose backward pass stays in the calling thread."""
    with torch.autograd.set_multithreading_enabled(mode=False):
        return step()


def _loss(shape: ImageShape) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
    labels = {"background": 0} | {f"label {number}": number for number in range(1, shape.num_classes)}
    dataset = DatasetSpec(name="noise", channel_names=("MRI",), labels=labels, file_ending=".nii.gz")
    return partial(segmentation_loss, spec=LossSpec(), dataset=dataset)


def _step(
    network: nn.Module,
    *,
    parameters: Sequence[nn.Parameter],
    images: Tensor,
    label_maps: Tensor,
    loss: Callable[[Sequence[Tensor], Tensor], Tensor],
    dtype: torch.dtype | None,
) -> Tensor:
    """Compute the gradients of a batch.

    float16 losses are scaled as in training.
    """
    if not network.training:  # walking over the modules of a network takes a millisecond
        network.train()
    for parameter in parameters:  # as an optimizer does, without walking over the modules
        parameter.grad = None
    with torch.autocast(images.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        outputs = network(images)
    value = loss((outputs,) if isinstance(outputs, Tensor) else outputs, label_maps)
    (value * 2.0**10 if dtype == torch.float16 else value).backward()
    return value.detach()


def _infer(network: nn.Module, images: Tensor, *, dtype: torch.dtype | None) -> Tensor:
    if network.training:
        network.eval()
    with (
        torch.no_grad(),
        torch.autocast(images.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        outputs = network(images)
    return outputs if isinstance(outputs, Tensor) else outputs[0]
