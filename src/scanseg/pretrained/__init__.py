"""Trained models to share: by name, from an address, with a model card."""

from scanseg.pretrained.card import make_card
from scanseg.pretrained.names import NamedModel, find_model, list_models
from scanseg.pretrained.saving import WeightType, save_model

__all__ = ["NamedModel", "WeightType", "find_model", "list_models", "make_card", "save_model"]
