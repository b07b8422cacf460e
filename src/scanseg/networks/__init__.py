"""The networks, the table that builds them from descriptions, and the names of published weights."""

from scanseg.networks.input_check import nearest_size
from scanseg.networks.msvm_unet import MSVMUNet
from scanseg.networks.network_table import NETWORKS, NetworkEntry, build_network
from scanseg.networks.nnunet import PlainUNet, ResidualUNet
from scanseg.networks.placement import place_network, set_channels_last
from scanseg.networks.published.verification import VerificationResult, verify_record
from scanseg.networks.published.weight_maps import (
    WEIGHT_MAPS,
    load_official,
    official_to_ours,
    ours_to_official,
)
from scanseg.networks.weight_decay import split_weight_decay
from scanseg.networks.xlstm_unet import XLSTMUNet

__all__ = [
    "NETWORKS",
    "WEIGHT_MAPS",
    "MSVMUNet",
    "NetworkEntry",
    "PlainUNet",
    "ResidualUNet",
    "VerificationResult",
    "XLSTMUNet",
    "build_network",
    "load_official",
    "nearest_size",
    "official_to_ours",
    "ours_to_official",
    "place_network",
    "set_channels_last",
    "split_weight_decay",
    "verify_record",
]
