"""Small networks with the names of nnU-Net's layers, and folders as nnU-Net writes them.

Written by hand from the structure of nnU-Net 2.8's networks, so that tests need no nnU-Net.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Layer(nn.Module):
    """Convolution, norm and leaky ReLU, registered twice as in nnU-Net."""

    def __init__(self, inputs, outputs, kernel, stride, *, bias=True, active=True):
        super().__init__()
        axes = len(kernel)
        padding = [size // 2 for size in kernel]
        self.conv = CONV[axes](inputs, outputs, tuple(kernel), tuple(stride), padding, bias=bias)
        self.norm = NORM[axes](outputs, eps=1e-5, affine=True)
        layers = [self.conv, self.norm]
        if active:
            self.nonlin = nn.LeakyReLU()
            layers.append(self.nonlin)
        self.all_modules = nn.Sequential(*layers)

    def forward(self, x):
        return self.all_modules(x)


class Layers(nn.Module):
    """Several layers, of which the first one has a stride."""

    def __init__(self, inputs, outputs, kernel, stride, count, *, bias=True):
        super().__init__()
        ones = [1] * len(kernel)
        self.convs = nn.Sequential(
            Layer(inputs, outputs, kernel, stride, bias=bias),
            *(Layer(outputs, outputs, kernel, ones, bias=bias) for _ in range(count - 1)),
        )

    def forward(self, x):
        return self.convs(x)


class Block(nn.Module):
    """A residual block with average pooling in its shortcut."""

    def __init__(self, inputs, outputs, kernel, stride, *, bias=True):
        super().__init__()
        ones = [1] * len(kernel)
        self.conv1 = Layer(inputs, outputs, kernel, stride, bias=bias)
        self.conv2 = Layer(outputs, outputs, kernel, ones, bias=bias, active=False)
        parts = []
        if max(stride) > 1:
            parts.append(POOL[len(kernel)](tuple(stride), tuple(stride)))
        if inputs != outputs:
            parts.append(Layer(inputs, outputs, ones, ones, bias=False, active=False))
        if parts:
            self.skip = nn.Sequential(*parts)
        self.nonlin2 = nn.LeakyReLU()

    def forward(self, x):
        return self.nonlin2(self.conv2(self.conv1(x)) + (self.skip(x) if hasattr(self, "skip") else x))


class Blocks(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, count, *, bias=True):
        super().__init__()
        ones = [1] * len(kernel)
        self.blocks = nn.Sequential(
            Block(inputs, outputs, kernel, stride, bias=bias),
            *(Block(outputs, outputs, kernel, ones, bias=bias) for _ in range(count - 1)),
        )

    def forward(self, x):
        return self.blocks(x)


class Encoder(nn.Module):
    def __init__(self, inputs, arguments, *, residual):
        super().__init__()
        features, kernels = arguments["features_per_stage"], arguments["kernel_sizes"]
        counts = arguments["n_blocks_per_stage" if residual else "n_conv_per_stage"]
        bias = arguments["conv_bias"]
        if residual:
            self.stem = Layers(inputs, features[0], kernels[0], [1] * len(kernels[0]), 1, bias=bias)
            inputs = features[0]
        stages = []
        for number, stride in enumerate(arguments["strides"]):
            kind = Blocks if residual else Layers
            stage = kind(inputs, features[number], kernels[number], stride, counts[number], bias=bias)
            stages.append(stage if residual else nn.Sequential(stage))
            inputs = features[number]
        self.stages = nn.Sequential(*stages)

    def forward(self, x):
        x = self.stem(x) if hasattr(self, "stem") else x
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    def __init__(self, encoder, num_classes, arguments):
        super().__init__()
        self.encoder = encoder
        features, kernels = arguments["features_per_stage"], arguments["kernel_sizes"]
        axes, bias = len(kernels[0]), arguments["conv_bias"]
        self.stages, self.transpconvs, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for number, level in enumerate(reversed(range(len(features) - 1))):
            stride = tuple(arguments["strides"][level + 1])
            up = TRANSPOSED[axes](features[level + 1], features[level], stride, stride, bias=bias)
            self.transpconvs.append(up)
            count = arguments["n_conv_per_stage_decoder"][number]
            ones = [1] * axes
            self.stages.append(
                Layers(2 * features[level], features[level], kernels[level], ones, count, bias=bias)
            )
            self.seg_layers.append(CONV[axes](features[level], num_classes, 1))

    def forward(self, skips):
        x = skips[-1]
        for number, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = stage(torch.cat((up(x), skips[-(number + 2)]), 1))
        return self.seg_layers[-1](x)


class UNet(nn.Module):
    """nnU-Net's plain or residual-encoder U-Net."""

    def __init__(
        self, inputs: int, num_classes: int, arguments: Mapping[str, Any], *, residual: bool
    ) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, arguments, residual=residual)
        self.decoder = Decoder(self.encoder, num_classes, arguments)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def architecture(axes: int, *, residual: bool = False, **changes: Any) -> dict[str, Any]:
    """Return a network of three stages as in nnU-Net's plans. `changes` replace arguments."""
    counts = {"n_blocks_per_stage": [1, 2, 2]} if residual else {"n_conv_per_stage": [2, 1, 2]}
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [[1, 3, 3][-axes:], [3] * axes, [3] * axes],
        "strides": [[1] * axes, [1, 2, 2][-axes:], [2] * axes],
        **counts,
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    } | changes
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(axes: int, *, residual: bool = False, **changes: Any) -> dict[str, Any]:
    """Return a configuration with patches of 16 voxels along y and x. `changes` replace settings."""
    name = "resample_data_or_seg_to_shape"
    return {
        "data_identifier": "nnUNetPlans_x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 16, 16][-axes:],
        "spacing": [2.0, 1.0, 1.0][-axes:],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": name,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg": name,
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": name,
        "resampling_fn_probabilities_kwargs": {
            "is_seg": False,
            "order": 1,
            "order_z": 0,
            "force_separate_z": None,
        },
        "architecture": architecture(axes, residual=residual),
        "batch_dice": True,
    } | changes


def plans(configurations: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return plans of nnU-Net. `changes` replace settings."""
    names = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
    properties = dict(zip(names, (900.0, 400.0, 390.0, 20.0, 40.0, 930.0, 170.0), strict=True))
    return {
        "dataset_name": "Dataset001_Small",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.0, 1.0],
        "original_median_shape_after_transp": [8, 16, 16],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": properties, "1": properties},
        "configurations": dict(configurations),
    } | changes


DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "outer": 1, "inner": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def random_network(arch: Mapping[str, Any], *, inputs: int = 1, num_classes: int = 3, seed: int = 0) -> UNet:
    """Return a network of an architecture with random weights, norms included."""
    torch.manual_seed(seed)
    residual = arch["network_class_name"].endswith("ResidualEncoderUNet")
    network = UNet(inputs, num_classes, arch["arch_kwargs"], residual=residual)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def write_folder(
    folder: Path,
    described: Mapping[str, Any],
    name: str,
    networks: Sequence[UNet],
    *,
    dataset: Mapping[str, Any] = DATASET,
    trainer: str = "nnUNetTrainer",
    mirror_axes: Sequence[int] | None = (0, 1),
    prefix: str = "",
) -> Path:
    """Write the folder of a training as nnU-Net does.

    Args:
        folder: New folder.
        described: The plans.
        name: Name of the configuration.
        networks: Network of each fold.
        dataset: Content of `dataset.json`.
        trainer: Name of the trainer.
        mirror_axes: Axes of mirroring.
        prefix: Prefix of the names of weights.
    """
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(described))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold, network in enumerate(networks):
        weights = {prefix + key: value for key, value in network.state_dict().items()}
        (folder / f"fold_{fold}").mkdir()
        torch.save(
            {
                "network_weights": weights,
                "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
                "grad_scaler_state": None,
                "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.6)]},
                "_best_ema": np.float64(0.6),
                "current_epoch": 2,
                "init_args": {
                    "plans": copy.deepcopy(dict(described)),
                    "configuration": name,
                    "fold": fold,
                    "dataset_json": dict(dataset),
                    "device": torch.device("cpu"),
                },
                "trainer_name": trainer,
                "inference_allowed_mirroring_axes": mirror_axes,
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    return folder
