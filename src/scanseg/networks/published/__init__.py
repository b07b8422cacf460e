"""Weights of the published implementations: name maps and verification."""

from scanseg.networks.published.verification import VerificationResult, verify_record
from scanseg.networks.published.weight_maps import (
    WEIGHT_MAPS,
    load_official,
    official_to_ours,
    ours_to_official,
)

__all__ = [
    "WEIGHT_MAPS",
    "VerificationResult",
    "load_official",
    "official_to_ours",
    "ours_to_official",
    "verify_record",
]
