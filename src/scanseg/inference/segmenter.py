"""Interface of a predictor, as the segmentation of folders needs it."""

from collections.abc import Sequence
from typing import Protocol

import torch

from scanseg.inference.inputs import Source
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.specs import Plan


class Segmenter(Protocol):
    """Object that segments images by the networks of one or more plans."""

    @property
    def plan(self) -> Plan:
        """Plan of the network, or of the first network of several plans."""

    @property
    def device(self) -> torch.device:
        """Device of the computation."""

    @property
    def model(self) -> str:
        """Model folder, or the source of the network if it has none."""

    @property
    def recipe(self) -> str:
        """Name of the recipe, or of all recipes."""

    @property
    def precision(self) -> str:
        """Type of the computation, such as `bfloat16`."""

    def compute_digest(self) -> str:
        """Return the model digest, 8 hexadecimal digits."""

    def num_members(self, *, mirror: bool) -> int:
        """Return the number of averaged predictions: one per network and flip."""

    def prepare(self, source: Source, *, spacing: Sequence[float] | None = None) -> PreparedImage:
        """Read and preprocess an image."""

    def predict_prepared(
        self,
        prepared: PreparedImage,
        *,
        mirror: bool = False,
        probabilities: bool = False,
        uncertainty: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> Prediction:
        """Segment a prepared image."""
