"""Uncertainty: entropy of the probabilities, and disagreement of members.

Members are the flips of a window and the networks of an ensemble. With p_m the probabilities of member m and p their
mean, the disagreement is H(p) - mean_m H(p_m). It is the part of the entropy caused by differences between members, and
0 if all members agree.
Source: Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2; Depeweg et al. 2018, arXiv:1710.07283, eq. 4.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Network = Callable[[Tensor], Tensor]


def entropy(probabilities: Float[Tensor, "output *spatial"], *, regions: bool) -> Float[Tensor, "*spatial"]:
    """Return the normalized entropy of each voxel, from 0 to 1.

    Args:
        probabilities: Probability of each label, or of each region.
        regions: The outputs are regions. The mean of their entropies is returned.
    """
    if regions:
        return (_terms(probabilities) + _terms(1 - probabilities)).mean(0) / math.log(2)
    return _terms(probabilities).sum(0) / math.log(max(2, len(probabilities)))


def mean_logits(
    networks: Sequence[Network],
    windows: Float[Tensor, "batch channel *patch"],
    *,
    flips: Sequence[tuple[int, ...]],
) -> Float[Tensor, "batch output *patch"]:
    """Return the mean logits of windows over networks and flips.

    Logits of flipped windows are flipped back.

    Args:
        networks: At least one network.
        windows: Input of the networks.
        flips: Sets of batch axes to flip, in addition to the unflipped windows.
    """
    total = torch.zeros((), device=windows.device)
    for network in networks:
        total = total + network(windows).float()
        for axes in flips:
            total = total + network(windows.flip(axes)).float().flip(axes)
    return total / (len(networks) * (1 + len(flips)))


def logits_and_disagreement(
    networks: Sequence[Network],
    windows: Float[Tensor, "batch channel *patch"],
    *,
    flips: Sequence[tuple[int, ...]],
    regions: bool,
) -> Float[Tensor, "batch output_and_one *patch"]:
    """Return the mean logits, and the disagreement as last channel.

    Args:
        networks: At least one network.
        windows: Input of the networks.
        flips: Sets of batch axes to flip, in addition to the unflipped windows.
        regions: The outputs are regions.

    Returns:
        Mean logits as in `mean_logits`, then one channel of disagreement from 0 to 1.
    """
    logits, mean, own = (torch.zeros((), device=windows.device) for _ in range(3))
    count = len(networks) * (1 + len(flips))
    for network in networks:
        for axes in ((), *flips):
            member = network(windows.flip(axes) if axes else windows).float()
            member = member.flip(axes) if axes else member
            probabilities = to_probabilities(member.transpose(0, 1), regions=regions)
            logits, mean = logits + member / count, mean + probabilities / count
            own = own + entropy(probabilities, regions=regions) / count
    disagreement = (entropy(mean, regions=regions) - own).clamp(min=0)
    return torch.cat((logits, disagreement[:, None]), dim=1)


def to_probabilities(
    logits: Float[Tensor, "output *spatial"], *, regions: bool
) -> Float[Tensor, "output *spatial"]:
    """Return the probabilities of logits.

    Args:
        logits: Logits of labels, or of regions.
        regions: The outputs are regions.

    Returns:
        Sigmoid of each region, or softmax over labels.
    """
    return logits.sigmoid() if regions else logits.softmax(0)


def _terms(probabilities: Tensor) -> Tensor:
    """Return -p log p, and 0 for p = 0."""
    return -torch.special.xlogy(probabilities, probabilities)
