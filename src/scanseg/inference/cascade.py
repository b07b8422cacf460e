"""First-stage labels as input of the second stage of a cascade."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scanseg.batches import one_hot
from scanseg.errors import UsageError
from scanseg.inference.uncertainty import Network


def append_labels(
    image: Float[Tensor, "channel z y x"], predicted: UInt8[np.ndarray, "z y x"] | None
) -> Float[Tensor, "channel_and_labels z y x"]:
    """Append the labels of the first stage as last channel.

    Args:
        image: Image on the network's grid.
        predicted: Labels of the first stage on the same grid.

    Raises:
        UsageError: The labels are missing.
    """
    if predicted is None:
        raise UsageError(
            "the model is the second stage of a cascade: expected labels of the first stage, got none. Pass predicted=."
        )
    return torch.cat((image, torch.from_numpy(predicted)[None].float()))


def split_labels(network: Network, values: tuple[int, ...]) -> Network:
    """Return a network whose windows have labels in the last channel.

    Args:
        network: Network whose windows have one channel per label instead, of zeros and ones.
        values: Label value of each of these channels.
    """

    def run(windows: Tensor) -> Tensor:
        return network(torch.cat((windows[:, :-1], one_hot(windows[:, -1], values)), dim=1))

    return run
