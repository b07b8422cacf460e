"""Uncertainty: entropy of the probabilities, and disagreement of members.

Members are the flips of a window and the networks of an ensemble. With p_m the probabilities of member m and p their
mean, the disagreement is H(p) - mean_m H(p_m). It is the part of the entropy caused by differences between members, and
0 if all members agree.
Source: Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2; Depeweg et al. 2018, arXiv:1710.07283, eq. 4.
"""

import math
from collections.abc import Sequence

from jaxtyping import Float

from scanseg.inference.arrays import Array, Network, arrays_of


def entropy(probabilities: Float[Array, "output *spatial"], *, regions: bool) -> Float[Array, "*spatial"]:
    """Return the normalized entropy of each voxel, from 0 to 1.

    Args:
        probabilities: Probability of each label, or of each region.
        regions: The outputs are regions. The mean of their entropies is returned.
    """
    terms = arrays_of(probabilities).entropy_terms
    if regions:
        return (terms(probabilities) + terms(1 - probabilities)).mean(0) / math.log(2)
    return terms(probabilities).sum(0) / math.log(max(2, len(probabilities)))


def mean_logits(
    networks: Sequence[Network],
    windows: Float[Array, "batch channel *patch"],
    *,
    flips: Sequence[tuple[int, ...]],
) -> Float[Array, "batch output *patch"]:
    """Return the mean logits of windows over networks and flips.

    Logits of flipped windows are flipped back.

    Args:
        networks: At least one network.
        windows: Input of the networks.
        flips: Sets of batch axes to flip, in addition to the unflipped windows.
    """
    arrays, total = arrays_of(windows), 0.0
    for network in networks:
        total = total + arrays.single(network(windows))
        for axes in flips:
            flipped = arrays.single(network(arrays.flip(windows, axes)))
            total = total + arrays.flip(flipped, axes)
    return total / (len(networks) * (1 + len(flips)))


def logits_and_disagreement(
    networks: Sequence[Network],
    windows: Float[Array, "batch channel *patch"],
    *,
    flips: Sequence[tuple[int, ...]],
    regions: bool,
    temperatures: Sequence[float] | None = None,
) -> Float[Array, "batch output_and_one *patch"]:
    """Return the mean logits, and the disagreement as last channel.

    Args:
        networks: At least one network.
        windows: Input of the networks.
        flips: Sets of batch axes to flip, in addition to the unflipped windows.
        regions: The outputs are regions.
        temperatures: Temperature of each output, see `to_probabilities`.

    Returns:
        Mean logits as in `mean_logits`, then one channel of disagreement from 0 to 1.
    """
    arrays = arrays_of(windows)
    logits = mean = own = 0.0
    count = len(networks) * (1 + len(flips))
    for network in networks:
        for axes in ((), *flips):
            member = arrays.single(network(arrays.flip(windows, axes) if axes else windows))
            member = arrays.flip(member, axes) if axes else member
            probabilities = to_probabilities(
                member.swapaxes(0, 1), regions=regions, temperatures=temperatures
            )
            logits, mean = logits + member / count, mean + probabilities / count
            own = own + entropy(probabilities, regions=regions) / count
    disagreement = (entropy(mean, regions=regions) - own).clip(min=0)
    return arrays.concatenate((logits, disagreement[:, None]), axis=1)


def to_probabilities(
    logits: Float[Array, "output *spatial"], *, regions: bool, temperatures: Sequence[float] | None = None
) -> Float[Array, "output *spatial"]:
    """Return the probabilities of logits.

    Logits are divided by a temperature. For labels, it is that of the label with the largest logit, so this label
    keeps the largest probability. Source: Guo et al. 2017, arXiv:1706.04599, section 4.2 (one temperature); Frenkel and
    Goldberger 2021, doi:10.23919/EUSIPCO54536.2021.9616219 (one for each predicted class).

    Args:
        logits: Logits of labels, or of regions.
        regions: The outputs are regions.
        temperatures: Temperature of each output. `None`: all are 1.

    Returns:
        Sigmoid of each region, or softmax over labels.
    """
    arrays = arrays_of(logits)
    if temperatures is not None and regions:
        logits = logits / arrays.of(temperatures).reshape(-1, *(1,) * (logits.ndim - 1))
    elif temperatures is not None:
        logits = logits / arrays.look_up(arrays.of(temperatures), arrays.argmax(logits))
    return arrays.sigmoid(logits) if regions else arrays.softmax(logits)
