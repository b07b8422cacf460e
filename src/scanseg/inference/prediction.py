"""What a prediction takes and gives: an image as networks see it, and an image that was segmented."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float32, UInt8

from scanseg.imaging import Image
from scanseg.specs import CaseGeometry


@dataclass(frozen=True, eq=False)
class Prediction:
    """A segmented image."""

    label_map: UInt8[np.ndarray, "*spatial"]
    """Labels on the grid of the image."""
    probabilities: Float16[np.ndarray, "output *spatial"] | None
    """Probability of each label (background first) or region on the grid of the image, if asked for."""
    entropy: Float16[np.ndarray, "*spatial"] | None
    """Entropy of the probabilities from 0 to 1, its largest value, if uncertainty was asked for."""
    disagreement: Float16[np.ndarray, "*spatial"] | None
    """Part of the entropy by which flips, networks and plans of an ensemble disagree, if there are several."""
    image: Image
    """The image that was segmented."""


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image, and what the network sees of it."""

    image: Image
    array: Float32[np.ndarray, "channel z y x"]
    geometry: CaseGeometry
    members: "tuple[PreparedImage, ...]" = ()
    """The same image as the networks of other plans see it."""
