"""Segmentation networks, their table, and maps of published weights."""

from scanseg.networks.buffers import buffers_kept
from scanseg.networks.encoder_network import EncoderNetwork
from scanseg.networks.graphed import GraphedNetwork, graphed
from scanseg.networks.matching_weights import MatchingWeights, load_matching
from scanseg.networks.msvm_unet import MSVMUNet
from scanseg.networks.network_table import NETWORKS, build_network
from scanseg.networks.nnunet import PlainUNet, ResidualUNet
from scanseg.networks.placement import ConvolutionalNetwork, place_network, set_channels_last
from scanseg.networks.published import (
    WEIGHT_MAPS,
    VerificationResult,
    load_official,
    official_to_ours,
    ours_to_official,
    verify_record,
)
from scanseg.networks.weight_decay import split_weight_decay
from scanseg.networks.without_values import without_values
from scanseg.networks.xlstm_unet import XLSTMUNet

__all__ = [
    "NETWORKS",
    "WEIGHT_MAPS",
    "ConvolutionalNetwork",
    "EncoderNetwork",
    "GraphedNetwork",
    "MSVMUNet",
    "MatchingWeights",
    "PlainUNet",
    "ResidualUNet",
    "VerificationResult",
    "XLSTMUNet",
    "buffers_kept",
    "build_network",
    "graphed",
    "load_matching",
    "load_official",
    "official_to_ours",
    "ours_to_official",
    "place_network",
    "set_channels_last",
    "split_weight_decay",
    "verify_record",
    "without_values",
]
