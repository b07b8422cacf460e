"""Processes that share each batch, one per GPU, started by `torchrun`.

The GPUs belong to one machine or more. Every process holds the whole network and computes its shard of each batch.
Gradients are averaged over the processes during the backward pass, also inside a CUDA graph. With accumulated
gradients, they are averaged once, after the last pass.
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

_TIMEOUT = timedelta(hours=24)
"""Time that processes wait for the main process, which may preprocess a large data set."""


@dataclass(frozen=True)
class Distributed:
    """Distributed processes of a training, with this process's rank."""

    rank: int = 0
    """Number of this process, from 0."""
    world_size: int = 1
    """Number of all processes."""
    local_rank: int = 0
    """Number of this process on its machine, from 0."""
    local_world_size: int = 1
    """Number of processes on its machine."""

    @property
    def is_main_process(self) -> bool:
        """True on the main process (rank 0), which writes files and reports."""
        return self.rank == 0

    def check_batch(self, batch_size: int, *, accumulation_steps: int) -> None:
        """Check that the processes can share a batch.

        Args:
            batch_size: Patches per step, over all processes.
            accumulation_steps: Passes in which each process computes its shard.

        Raises:
            UsageError: The patches cannot be divided evenly.
        """
        parts = self.world_size * accumulation_steps
        if batch_size % parts:
            steps = f" of {accumulation_steps} accumulation steps each" if accumulation_steps > 1 else ""
            raise UsageError(
                f"batch_size {batch_size} is not divisible by {self.world_size} processes{steps}. "
                f"Use --batch-size {batch_size + parts - batch_size % parts}."
            )

    def sum(self, tensor: "Tensor") -> "Tensor":
        """Return the sum of a tensor over all processes.

        Gradients flow to every process.

        Args:
            tensor: Any shape, equal on all processes.
        """
        from scanseg.runtime import collectives

        return tensor if self.world_size == 1 else collectives.sum_tensor(tensor)

    def average_gradients(self, parameters: "Sequence[nn.Parameter]") -> None:
        """Replace gradients by their mean over all processes.

        Args:
            parameters: Parameters of this process. Those without a gradient are skipped.
        """
        import torch
        import torch.distributed as dist

        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.world_size).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def broadcast(self, tensors: "Sequence[Tensor]") -> None:
        """Copy tensors from the main process to all others.

        Args:
            tensors: Tensors of any shape, in the same order on all processes.
        """
        import torch.distributed as dist

        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather_numbers(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return the numbers of every process, by rank.

        The numbers are exchanged between hosts, so no device is synchronized.

        Args:
            numbers: As many on every process.
        """
        import torch
        import torch.distributed as dist

        if self.world_size == 1:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64)
        gathered = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(gathered, own)
        return [each.tolist() for each in gathered]

    def gather(self, value: Result) -> list[Result]:
        """Return the value of every process, by rank.

        Args:
            value: Can be pickled, and is not `None`.
        """
        import torch.distributed as dist

        if self.world_size == 1:
            return [value]
        values: list[Result | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return [each for each in values if each is not None]

    def on_main_process(self, function: Callable[[], Result]) -> Result:
        """Call a function in the main process and return its result everywhere.

        Args:
            function: Called without arguments. Its result can be pickled.

        Raises:
            OtherProcessError: In the other processes, if the function raises in the main process.
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
            raise OtherProcessError("the main process failed")
        return result  # type: ignore[return-value]


SINGLE_PROCESS = Distributed()
"""This process trains without others."""


def count_launched() -> int:
    """Return the number of processes that `torchrun` started, or 1 without `torchrun`."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextmanager
def join_processes(device: str) -> "Iterator[tuple[Distributed, torch.device]]":
    """Join the processes that `torchrun` started, and choose a device.

    Without `torchrun`, the process stays alone.

    Args:
        device: As for `choose_device`. Under `torchrun`, `auto` and `cuda` mean the GPU whose number is the local rank.

    Yields:
        This process among the others, and its device.

    Raises:
        UsageError: The device is not available, or several processes cannot share it.
        ScansegError: In the main process, if another process ended within the block.
        OtherProcessError: In the other processes, if a process ended.
    """
    import torch
    import torch.distributed as dist

    from scanseg.runtime import collectives as _imported_before_the_group  # noqa: F401 - see its first comment
    from scanseg.runtime.cuda_graph import release_communicating_graphs
    from scanseg.runtime.device import choose_device

    if count_launched() == 1:
        yield SINGLE_PROCESS, choose_device(device)
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in names)
    if device.startswith(("cuda:", "mps")):
        raise UsageError(
            f"device: expected auto, cuda or cpu for {world_size} processes, got {device!r}, which all would share."
        )
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    chosen = choose_device(f"cuda:{local_rank}" if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.set_device(chosen)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    try:
        with _explain_lost_process(rank, world_size):
            yield Distributed(rank, world_size, local_rank, local_world_size), chosen
    finally:
        release_communicating_graphs()
        dist.destroy_process_group()


@contextmanager
def _explain_lost_process(rank: int, world_size: int) -> Iterator[None]:
    """Raise an explained error if communication fails because another process ended.

    The other process reports its own reason.
    """
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        # Gloo raises plain RuntimeErrors. NCCL raises DistError.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        message = (
            f"another of the {world_size} processes ended, so all end. Find the reason in its output, or in torchrun's "
            f"below, and continue with --resume."
        )
        raise ScansegError(message) if rank == 0 else OtherProcessError(message) from error
