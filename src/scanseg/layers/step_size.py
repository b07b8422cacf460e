"""Initial step sizes of selective scans."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

STEP_SIZE_RANGE = (1e-3, 0.1)
STEP_SIZE_FLOOR = 1e-4


def initial_step_bias(*shape: int) -> Float[Tensor, "*shape"]:
    """Draw biases that give log-uniform initial step sizes.

    softplus(bias) is log-uniform in [1e-3, 0.1]. Source: Gu and Dao 2023, arXiv:2312.00752, section 3.6.

    Args:
        shape: Shape of the result.
    """
    low, high = (math.log(bound) for bound in STEP_SIZE_RANGE)
    step = torch.exp(torch.empty(shape).uniform_(low, high)).clamp(min=STEP_SIZE_FLOOR)
    return step + torch.log(-torch.expm1(-step))
