"""Prepared images, logits of a plan, and segmented images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float16, Float32, UInt8

from scanseg.imaging import Image
from scanseg.inference.arrays import Array
from scanseg.specs import CaseGeometry


@dataclass(frozen=True, eq=False)
class Prediction:
    """A segmented image."""

    label_map: UInt8[np.ndarray, "*spatial"]
    """Label map on the grid of the image."""
    probabilities: Float16[np.ndarray, "output *spatial"] | None
    """Probability of each label (background first) or region on the grid of the image. `None`: not asked for."""
    entropy: Float16[np.ndarray, "*spatial"] | None
    """Entropy of the probabilities, from 0 to 1. `None`: uncertainty was not asked for."""
    disagreement: Float16[np.ndarray, "*spatial"] | None
    """Part of the entropy due to disagreement of flips, networks and plans. `None`: there is only one, or uncertainty
    was not asked for."""
    image: Image
    """The image that was segmented."""
    warnings: tuple[str, ...] = ()
    """Unusual properties of the image and the plan: spacing, intensities, header, orientation."""


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image and its preprocessed array."""

    image: Image
    """The image as read."""
    array: Float32[np.ndarray, "channel z y x"]
    """Preprocessed image on the network's grid."""
    geometry: CaseGeometry
    """Geometry of that grid in the image."""
    members: "tuple[PreparedImage, ...]" = ()
    """The same image preprocessed by the plans of the other members."""
    warnings: tuple[str, ...] = ()
    """Unusual properties of the image and the plan, see `Prediction`."""


@dataclass(frozen=True, eq=False)
class PlanPrediction:
    """Logits of a case by the networks of one plan."""

    slabs: Iterable[Float[Array, "output slab y x"]]
    """Logits on the networks' grid, slab by slab along z. A last channel can hold the disagreement of members."""
    geometry: CaseGeometry
    """Geometry of that grid in the source."""
    separate_z: bool
    """Take the nearest slice along z, as in preprocessing (`scanseg.preprocessing.separates_z`)."""
    num_channels: int
    """Channels of the slabs: outputs, and the disagreement if it is computed."""
