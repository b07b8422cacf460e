"""Layers of the networks, as modules with plain arguments.

Maps are channels-first: (batch, channel, y, x) or (batch, channel, z, y, x). Sequences are (batch, token, dim).
"""

from scanseg.layers.channel_linear import ChannelLinear
from scanseg.layers.channel_norm import ChannelNorm
from scanseg.layers.convolution import (
    ConvNormAct,
    PlainConvolution,
    convolution,
    convolve,
    transposed_convolution,
)
from scanseg.layers.direction import Direction
from scanseg.layers.instance_norm import InstanceNorm
from scanseg.layers.mamba_block import MambaBlock
from scanseg.layers.pass_parameters import parameters_converted
from scanseg.layers.recomputation import SMALLEST_BYTES
from scanseg.layers.residual_block import BasicBlockD, BasicResBlock, zero_init_residuals
from scanseg.layers.sequence_layer import SequenceLayer, TokenAxis
from scanseg.layers.ss2d import SS2D
from scanseg.layers.stochastic_depth import SharedDraws
from scanseg.layers.upsampling import Upsampling, UpsamplingMethod
from scanseg.layers.vil_block import MLSTMCell, ViLBlock
from scanseg.layers.vss_block import Scales, VSSBlock, VSSStage

__all__ = [
    "SMALLEST_BYTES",
    "SS2D",
    "BasicBlockD",
    "BasicResBlock",
    "ChannelLinear",
    "ChannelNorm",
    "ConvNormAct",
    "Direction",
    "InstanceNorm",
    "MLSTMCell",
    "MambaBlock",
    "PlainConvolution",
    "Scales",
    "SequenceLayer",
    "SharedDraws",
    "TokenAxis",
    "Upsampling",
    "UpsamplingMethod",
    "VSSBlock",
    "VSSStage",
    "ViLBlock",
    "convolution",
    "convolve",
    "parameters_converted",
    "transposed_convolution",
    "zero_init_residuals",
]
