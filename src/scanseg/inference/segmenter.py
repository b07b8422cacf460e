"""Interfaces of a predictor, as the segmentation of folders needs it."""

from collections.abc import Sequence
from typing import Protocol

from scanseg.inference.inputs import Source
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.progress import ProgressCallback, ignore_progress
from scanseg.specs import Plan


class ModelFacts(Protocol):
    """Properties of a model on its device, for checks and records."""

    @property
    def plan(self) -> Plan:
        """Plan of the network, or of the first network of several plans."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the Python packages that compute, for records."""

    def describe_device(self) -> str:
        """Return the device with its product name or its threads, for records."""

    @property
    def model(self) -> str:
        """Model folder, or the source of the network if it has none."""

    @property
    def recipe(self) -> str:
        """Name of the recipe, or of all recipes."""

    @property
    def precision(self) -> str:
        """Type of the computation, such as `bfloat16`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the model, which each prediction repeats."""

    def compute_digest(self) -> str:
        """Return the model digest, 8 hexadecimal digits."""

    def mirrors(self, *, mirror: bool | None) -> bool:
        """Return whether predictions are averaged over flips.

        Args:
            mirror: The request. `None`: as the plans' `inference.mirror` say.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """

    def num_members(self, *, mirror: bool | None) -> int:
        """Return the number of averaged predictions: one per network and flip.

        Args:
            mirror: Average over flips along the plans' `inference.mirror_axes`. `None`: as the plans'
                `inference.mirror` say.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """


class Segmenter(ModelFacts, Protocol):
    """Object that segments images by the networks of one or more plans."""

    def prepare(self, source: Source, *, spacing: Sequence[float] | None = None) -> PreparedImage:
        """Read and preprocess an image on the host.

        Args:
            source: File of an image, its files, an image, or an array.
            spacing: Millimetres per voxel of an array along its spatial axes.
        """

    def predict_prepared(
        self,
        prepared: PreparedImage,
        *,
        mirror: bool | None = None,
        probabilities: bool = False,
        uncertainty: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> Prediction:
        """Segment a prepared image.

        Args:
            prepared: Result of `prepare`.
            mirror: Average over flips along the plans' `inference.mirror_axes`. `None`: as the plans'
                `inference.mirror` say.
            probabilities: Return the probabilities too.
            uncertainty: Return the entropy, and the disagreement if flips, networks or plans are averaged.
            progress: Called with each progress update.

        Raises:
            ScansegError: Memory ran out, or a logit is not finite.
        """
