"""Which parameters take weight decay."""

from torch import nn

NO_DECAY_NAMES = frozenset({"A_log", "D_skip", "dt_bias", "bias"})
"""Last parts of names that take none, whatever their shape: decays, skips and biases of scans."""


def split_weight_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters by whether they take weight decay.

    Scales of norms, biases, skips and decays of scans take none; weights of linear layers and convolutions
    do.

    Args:
        module: A network or a part of one.

    Returns:
        The parameters with decay and those without, each in the order of the module.
    """
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.ndim < 2 or name.rpartition(".")[2] in NO_DECAY_NAMES
            (no_decay if exempt else decay).append(parameter)
    return decay, no_decay
