"""Entries of training steps under `torch.compile`.

A compiled step is checked against the same step outside of compilation: loss and gradients from the same weights and
random draws. The network itself is checked against float64 by its own entry. Compiling is not part of the times.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import nn

from benchmarks.entries import Entry, TimedCall, Workload
from benchmarks.gates import GateReport
from benchmarks.network_entries import ABDOMEN, SYNAPSE, NetworkRow, make_step

MODES = {"compiled": None, "compiled-reduce-overhead": "reduce-overhead"}
"""Modes of `torch.compile` by the last part of an entry's name."""

ROWS = (NetworkRow("msvm-unet", SYNAPSE), NetworkRow("xlstm-unet-enc", ABDOMEN))

BOUND = 0.1
"""Bound of the relative L2 difference of all gradients in bfloat16, that of logits in `benchmarks.gates`."""

Step = Callable[[], torch.Tensor]


def compiled_entries() -> tuple[Entry, ...]:
    """Return the entries of all compiled steps."""
    return tuple(
        Entry(
            name=f"{row.name}/{row.shape}/bfloat16/{mode}",
            precision="bfloat16",
            device="cuda",
            build=partial(_build, row, mode),
            check=partial(_check, row, mode),
            check_key=f"{row.name} {row.shape} {mode}",
        )
        for row in ROWS
        for mode in MODES
    )


@lru_cache(maxsize=1)
def _compiled(
    row: NetworkRow,
    mode: str,
    device: torch.device,
    tiny: bool,  # noqa: FBT001 (the signature of an entry)
) -> tuple[nn.Module, Step, Step]:
    """Return a network, and its step outside and inside of a compiled graph."""
    torch.compiler.reset()
    # Both steps draw the same numbers for stochastic depth.
    torch._inductor.config.fallback_random = True
    network, step = make_step(row, "bfloat16", device, tiny=tiny)
    options = {"fullgraph": True, "backend": "aot_eager"} if device.type == "cpu" else {"fullgraph": True}
    compiled = torch.compile(network, mode=None if device.type == "cpu" else MODES[mode], **options)
    return network, partial(step, network), partial(step, compiled)


def _check(row: NetworkRow, mode: str, device: torch.device, tiny: bool) -> GateReport:  # noqa: FBT001
    network, direct, compiled = _compiled(row, mode, device, tiny)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    (loss, gradients), (true_loss, true_gradients) = (
        _loss_and_gradients(network, step, buffers) for step in (compiled, direct)
    )
    errors = {
        "loss": abs(loss - true_loss) / abs(true_loss),
        "gradients": ((gradients - true_gradients).norm() / true_gradients.norm()).item(),
    }
    return GateReport(errors, dict.fromkeys(errors, BOUND))


def _loss_and_gradients(
    network: nn.Module, step: Step, buffers: dict[str, torch.Tensor]
) -> tuple[float, torch.Tensor]:
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])
    torch.manual_seed(0)
    loss = step().item()
    # A compiled step gives zeros to heads that the loss leaves out.
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in network.parameters()
    ]
    return loss, torch.cat([gradient.flatten() for gradient in gradients]).clone()


def _build(row: NetworkRow, mode: str, device: torch.device, tiny: bool) -> Workload:  # noqa: FBT001
    _, _, compiled = _compiled(row, mode, device, tiny)
    return Workload({"step": TimedCall(compiled, replays=False)}, {"mode": MODES[mode] or "default"})
