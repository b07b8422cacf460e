"""Selection of the parameters with weight decay."""

from torch import nn

NO_DECAY_NAMES = frozenset({"A_log", "D_skip", "dt_bias", "bias"})
"""Last parts of parameter names without weight decay: decays, skips and biases of scans."""


def split_weight_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters into those with and without weight decay.

    Weights of linear layers and convolutions decay. Scales of norms, biases, and the skips and decays of scans do
    not.

    Args:
        module: A network or a part of it.

    Returns:
        The parameters with decay and the parameters without, each in the order of the module.

    Example:
        >>> from scanseg.networks import split_weight_decay
        >>> from torch import nn
        >>> decay, no_decay = split_weight_decay(nn.Linear(3, 2))
        >>> [tuple(parameter.shape) for parameter in decay], [tuple(parameter.shape) for parameter in no_decay]
        ([(2, 3)], [(2,)])
    """
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.ndim < 2 or name.rpartition(".")[2] in NO_DECAY_NAMES
            (no_decay if exempt else decay).append(parameter)
    return decay, no_decay
