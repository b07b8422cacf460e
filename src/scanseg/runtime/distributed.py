"""Several processes that share each batch: one on each GPU, on one machine or more (`torchrun`).

Every process holds the whole network and takes its part of each batch. Gradients are averaged over the processes
after the backward pass, in one message, so that a step may be a CUDA graph, and accumulate, as on one device.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from scanseg.errors import OtherProcessError, ScansegError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Result = TypeVar("Result")

_PATIENCE = timedelta(hours=24)
"""How long processes wait for the first one, which may be preprocessing a large data set."""


@dataclass(frozen=True)
class Distributed:
    """This process among those that train together."""

    rank: int = 0
    """Number of this process."""
    world_size: int = 1
    """Number of all processes."""
    local_rank: int = 0
    """Number of this process on its machine."""
    local_world_size: int = 1
    """Number of the processes on its machine."""

    @property
    def is_main_process(self) -> bool:
        """True on the main process (rank 0), which writes files and reports."""
        return self.rank == 0

    def check_batch(self, batch_size: int, *, accumulation_steps: int) -> None:
        """Make sure that a batch can be shared.

        Args:
            batch_size: Patches of a step.
            accumulation_steps: Parts in which each process has its share pass the network.

        Raises:
            UsageError: The patches cannot be divided evenly.
        """
        parts = self.world_size * accumulation_steps
        if batch_size % parts:
            in_parts = f", each with {accumulation_steps} parts in turn" if accumulation_steps > 1 else ""
            raise UsageError(
                f"batch_size {batch_size} is not divisible by {self.world_size} processes{in_parts}; "
                f"--batch-size {batch_size + parts - batch_size % parts} is"
            )

    def sum(self, tensor: "Tensor") -> "Tensor":
        """Return the sum of a tensor over all processes; gradients flow to each of them."""
        from scanseg.runtime import collectives

        return tensor if self.world_size == 1 else collectives.sum_tensor(tensor)

    def average_gradients(self, parameters: "Sequence[nn.Parameter]") -> None:
        """Replace the gradients by their mean over all processes."""
        import torch
        import torch.distributed as dist

        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.world_size).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def broadcast(self, tensors: "Sequence[Tensor]") -> None:
        """Overwrite tensors with those of the first process."""
        import torch.distributed as dist

        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather_numbers(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return the numbers of every process, by rank; the devices need not be waited for."""
        import torch
        import torch.distributed as dist

        if self.world_size == 1:
            return [list(numbers)]
        here = torch.tensor(numbers, dtype=torch.float64)
        everywhere = [torch.empty_like(here) for _ in range(self.world_size)]
        dist.all_gather(everywhere, here)
        return [there.tolist() for there in everywhere]

    def gather(self, value: Result) -> list[Result]:
        """Return the value of every process, by rank."""
        import torch.distributed as dist

        if self.world_size == 1:
            return [value]
        values: list[Result | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return [there for there in values if there is not None]

    def on_main_process(self, function: Callable[[], Result]) -> Result:
        """Call a function in the first process and return its result in all of them.

        Raises:
            OtherProcessError: In the others, where the function raises in the first.
        """
        import torch.distributed as dist

        if self.world_size == 1:
            return function()
        message: list[tuple[bool, Result | None]] = [(False, None)]
        if self.is_main_process:
            try:
                message = [(True, function())]
            finally:
                dist.broadcast_object_list(message, 0)
        else:
            dist.broadcast_object_list(message, 0)
        done, result = message[0]
        if not done:
            raise OtherProcessError("the first process failed")
        return result  # type: ignore[return-value]


SINGLE_PROCESS = Distributed()


def count_launched() -> int:
    """Return how many processes `torchrun` started; 1 where it did not start this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextmanager
def join_processes(device: str) -> "Iterator[tuple[Distributed, torch.device]]":
    """Join the processes that `torchrun` started, if it did, and choose this one's device.

    Args:
        device: As for `choose_device`; `auto` and `cuda` mean the GPU of the process's number on its machine.

    Raises:
        UsageError: The device is not there, or cannot be that of several processes.
        ScansegError: In the first process, where another one ended in the block.
        OtherProcessError: In the others, where one ended.
    """
    import torch
    import torch.distributed as dist

    from scanseg.runtime import collectives as _loaded_before_the_group  # noqa: F401 - see its head
    from scanseg.runtime.device import choose_device

    if count_launched() == 1:
        yield SINGLE_PROCESS, choose_device(device)
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in names)
    if device.startswith(("cuda:", "mps")):
        raise UsageError(f"device {device!r} is one for all {world_size} processes; choose auto, cuda or cpu")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    chosen = choose_device(f"cuda:{local_rank}" if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.set_device(chosen)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        with _explain_lost_process(rank, world_size):
            yield Distributed(rank, world_size, local_rank, local_world_size), chosen
    finally:
        dist.destroy_process_group()


@contextmanager
def _explain_lost_process(rank: int, world_size: int) -> Iterator[None]:
    """Say that another process ended, where waiting for what it sends fails; it has said itself why."""
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        # Gloo has no error of its own; NCCL's are these.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        message = (
            f"another of the {world_size} processes ended, so that all do; what it said, or torchrun below, tells "
            f"why. Go on with --resume"
        )
        raise ScansegError(message) if rank == 0 else OtherProcessError(message) from error
