"""Positions and tokens of the sequence layers of xLSTM-UNet.

Source: Chen et al. 2024, arXiv:2407.01530.
"""

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn

from scanseg.layers import BasicBlockD, Direction, MambaBlock, SequenceLayer, TokenAxis, ViLBlock
from scanseg.networks.stage_shapes import StageShapes

SequenceBlock = Literal["vil", "none", "mamba"]
Traversal = Literal["forward", "backward", "alternate", "bidirectional"]
StageRole = Literal["sequence", "convolution", "nothing"]
"""Layer after an encoder stage: a sequence layer, a residual block, or none."""


def stage_roles(*, num_stages: int, num_axes: int) -> tuple[StageRole, ...]:
    """Return the layer kind after each encoder stage of `enc`.

    Args:
        num_stages: Stages of the encoder.
        num_axes: Number of spatial axes: 2 or 3.
    """
    if num_axes == 3:
        return tuple("sequence" if stage >= 3 else "convolution" for stage in range(num_stages))
    roles: list[StageRole] = ["nothing"] * num_stages
    # Every second stage has a sequence layer, counted from the last one.
    for stage in range(num_stages - 1, 1, -2):
        roles[stage] = "sequence"
    roles[1] = "convolution"
    return tuple(roles)


def token_axes(shapes: StageShapes, patch_size: Sequence[int] | None) -> tuple[TokenAxis, ...]:
    """Return the token axis of each stage: `channel` or `voxel`.

    Channels are the tokens if the map has at most as many voxels as features.

    Args:
        shapes: The stages.
        patch_size: Voxels per axis of the training patch. `None`: voxels are the tokens of every stage.
    """
    if patch_size is None:
        return tuple("voxel" for _ in range(shapes.num_stages))
    return tuple(
        "channel" if math.prod(size) <= features else "voxel"
        for size, features in zip(shapes.map_sizes(patch_size), shapes.features, strict=True)
    )


def sequence_layer(
    block: Literal["vil", "mamba"], *, dim: int, tokens: TokenAxis, traversal: Traversal, index: int
) -> SequenceLayer:
    """Build one sequence layer.

    Args:
        block: The block over tokens.
        dim: Features of a token.
        tokens: `voxel` or `channel`.
        traversal: Order in which tokens are read. `alternate`: every second layer reads backward.
        index: Number of the layer among the sequence layers of the network, from 0.
    """
    direction: Direction = ("forward", "backward")[index % 2] if traversal == "alternate" else traversal
    if block == "vil":
        return SequenceLayer(ViLBlock(dim, direction=direction), tokens=tokens)
    return SequenceLayer(MambaBlock(dim, direction=direction), tokens=tokens)


def encoder_sequence_layers(
    shapes: StageShapes, *, patch_size: Sequence[int] | None, block: SequenceBlock, traversal: Traversal
) -> nn.ModuleList:
    """Build the layers after the encoder stages of the `enc` variant.

    A stage has a sequence layer, a residual block or an identity.

    Args:
        shapes: The stages.
        patch_size: Voxels per axis of the training patch. `None`: voxels are the tokens of every stage.
        block: The block over tokens. `none`: residual blocks replace the sequence layers.
        traversal: Order in which tokens are read.

    Returns:
        One layer per stage.
    """
    layers: list[nn.Module] = []
    roles = stage_roles(num_stages=shapes.num_stages, num_axes=shapes.num_axes)
    axes = token_axes(shapes, patch_size)
    sizes = () if patch_size is None else shapes.map_sizes(patch_size)
    for stage, (role, features) in enumerate(zip(roles, shapes.features, strict=True)):
        if role == "nothing":
            layers.append(nn.Identity())
        elif role == "convolution" or block == "none":
            layers.append(BasicBlockD(features, features, kernel_size=shapes.kernel_sizes[stage]))
        else:
            dim = math.prod(sizes[stage]) if axes[stage] == "channel" else features
            index = roles[:stage].count("sequence")
            layers.append(
                sequence_layer(block, dim=dim, tokens=axes[stage], traversal=traversal, index=index)
            )
    return nn.ModuleList(layers)
