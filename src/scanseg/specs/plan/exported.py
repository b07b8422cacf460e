"""The document of a model that was exported for another runtime."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from scanseg.specs.base import Document, Temperature
from scanseg.specs.plan.ensemble import PostprocessingSpec
from scanseg.specs.plan.plan import Plan

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\.onnx$", max_length=100)]
"""Name of a network file, without folders."""
Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a file, in hexadecimal digits."""


class ExportedNetwork(Document):
    """One network in ONNX format."""

    file: FileName
    """File in the folder of the document."""
    sha256: Checksum
    """Checksum of the file."""
    largest_difference: NonNegativeFloat
    """Largest difference between the logits of the file and of PyTorch on the random windows of the export."""
    largest_logit: NonNegativeFloat
    """Largest absolute value of these logits."""


class ExportedPart(Document):
    """Networks of one plan."""

    plan: Plan
    """Plan of the networks: preprocessing, windows and labels."""
    input_shape: tuple[PositiveInt, ...] = Field(min_length=3, max_length=4)
    """Shape of a window: channels, then voxels along z, y, x, or along y, x. A batch axis of any size comes first."""
    networks: tuple[ExportedNetwork, ...] = Field(min_length=1)
    """Networks whose logits are averaged."""
    first_stage: "ExportedPart | None" = None
    """First stage of a cascade. Its label maps are not postprocessed."""
    members: "tuple[ExportedPart, ...]" = ()
    """Networks of other plans. The probabilities of all plans are averaged on the grid of the image."""

    @property
    def all_networks(self) -> tuple[ExportedNetwork, ...]:
        """Networks of the plan, of its first stage and of its members."""
        further = (*(() if self.first_stage is None else (self.first_stage,)), *self.members)
        return (*self.networks, *(network for part in further for network in part.all_networks))


class ExportedModel(Document):
    """The file `model.json` of an exported model."""

    format: Literal[1] = 1
    """Version of the file format."""
    kind: Literal["onnx"] = "onnx"
    """Format of the networks."""
    scanseg: str
    """Version of scanseg that exported the model."""
    torch: str
    """Version of PyTorch that exported the networks."""
    source: str
    """Model folder that was exported."""
    model_digest: str
    """Model digest of this folder, as in the records of its predictions."""
    opset: PositiveInt
    """Version of the ONNX operators."""
    tolerance: NonNegativeFloat
    """Largest difference of logits that the export allowed, as a fraction of the largest logit or of 1."""
    blending: Literal["gaussian"] = "gaussian"
    """Weights of the voxels of a window: a Gaussian around its centre.

    The standard deviation is 1/8 of the window along each axis. The logits of overlapping windows are averaged with
    these weights.
    """
    model: ExportedPart
    """Networks and plan."""
    postprocessing: PostprocessingSpec = PostprocessingSpec()
    """Components that are removed from predicted label maps."""
    temperatures: tuple[Temperature, ...] | None = None
    """Temperature of each output for probabilities and uncertainty. `None`: not calibrated."""
    warnings: tuple[str, ...] = ()
    """Warnings about the model, which each prediction repeats."""

    @property
    def networks(self) -> tuple[ExportedNetwork, ...]:
        """Networks of the plan, of its first stage and of its members."""
        return self.model.all_networks
