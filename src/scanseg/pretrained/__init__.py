"""Trained models to share: names, addresses, model cards."""

from scanseg.pretrained.card import CARD_FILE, make_card
from scanseg.pretrained.fetching import checksum_of, is_address
from scanseg.pretrained.names import find_model, list_models
from scanseg.pretrained.saving import WeightType, save_model

__all__ = [
    "CARD_FILE",
    "WeightType",
    "checksum_of",
    "find_model",
    "is_address",
    "list_models",
    "make_card",
    "save_model",
]
