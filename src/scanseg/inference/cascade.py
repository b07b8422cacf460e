"""First-stage labels as input of the second stage of a cascade."""

import numpy as np
from jaxtyping import Float32, UInt8

from scanseg.errors import UsageError
from scanseg.inference.arrays import Array, Network, arrays_of


def append_labels(
    image: Float32[np.ndarray, "channel z y x"], predicted: UInt8[np.ndarray, "z y x"] | None
) -> Float32[np.ndarray, "channel_and_labels z y x"]:
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
    return np.concatenate((image, predicted[None].astype(np.float32)))


def split_labels(network: Network, values: tuple[int, ...]) -> Network:
    """Return a network whose windows have labels in the last channel.

    Args:
        network: Network whose windows have one channel per label instead, of zeros and ones.
        values: Label value of each of these channels.
    """

    def run(windows: Array) -> Array:
        arrays = arrays_of(windows)
        channels = [arrays.single(windows[:, -1:] == value) for value in values]
        return network(arrays.concatenate((windows[:, :-1], *channels), axis=1))

    return run
