"""A residual branch that the next norm adds to the map."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scanseg.ops import scaled_sum


class Branch(NamedTuple):
    """A residual branch before its addition to a map.

    Attributes:
        value: The branch.
        sample_scale: Factor of each sample, from stochastic depth. `None`: 1.
    """

    value: Float[Tensor, "batch channel *space"]
    sample_scale: Float[Tensor, " batch"] | None

    def added_to(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Return the sum of a map and the branch."""
        if self.sample_scale is None:
            return x + self.value
        if x.is_cuda and not torch.compiler.is_compiling():
            return scaled_sum(x, self.value, self.sample_scale)
        scale = self.sample_scale.to(self.value.dtype)
        return x + self.value * scale.view(-1, *(1,) * (x.ndim - 1))
