"""Loading of the weights that fit a network, with a report."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from scanseg.errors import InputError
from scanseg.messages import listed


@dataclass(frozen=True)
class MatchingWeights:
    """Report of loaded and other weights."""

    loaded: tuple[str, ...]
    """Names of the loaded weights and buffers."""
    missing: tuple[str, ...]
    """Names of the network without weights. They keep their values."""
    surplus: tuple[str, ...]
    """Names that the network does not have."""
    other_shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """Shape in the network and shape of the weights, by name. The network keeps its values."""

    def __str__(self) -> str:
        """Return a line with counts and first names."""
        parts = [f"{len(self.loaded)} loaded"]
        for names, state in (
            (self.missing, "missing"),
            (self.surplus, "surplus"),
            (list(self.other_shapes), "of another shape"),
        ):
            if names:
                parts.append(f"{len(names)} {state} ({listed(list(names))})")
        return ", ".join(parts)


def load_matching(network: nn.Module, weights: Mapping[str, Tensor]) -> MatchingWeights:
    """Load the weights whose names and shapes fit a network.

    Args:
        network: The network. Its other weights keep their values.
        weights: State dict of another network.

    Returns:
        The report.

    Raises:
        InputError: No weight fits.

    Examples:
        >>> from scanseg.networks import XLSTMUNet, load_matching
        >>> pretrained = XLSTMUNet(1, 3, spatial_dims=2, features=(4, 8, 8), deep_supervision=False)
        >>> network = XLSTMUNet(1, 5, spatial_dims=2, features=(4, 8, 8), deep_supervision=False)
        >>> report = load_matching(network, pretrained.state_dict())
        >>> report.other_shapes
        {'decoder.heads.0.weight': ((5, 4, 1, 1), (3, 4, 1, 1)), 'decoder.heads.0.bias': ((5,), (3,))}
    """
    own = network.state_dict()
    common = [name for name in own if name in weights]
    loaded = [name for name in common if own[name].shape == weights[name].shape]
    if not loaded:
        raise InputError(
            f"weights: expected names and shapes of the network ({listed(list(own))}), got {listed(list(weights))}. "
            "Check prefixes such as `module.`, and the arguments of the network."
        )
    network.load_state_dict({**own, **{name: weights[name] for name in loaded}})
    return MatchingWeights(
        loaded=tuple(loaded),
        missing=tuple(name for name in own if name not in weights),
        surplus=tuple(name for name in weights if name not in own),
        other_shapes={
            name: (tuple(own[name].shape), tuple(weights[name].shape))
            for name in common
            if own[name].shape != weights[name].shape
        },
    )
