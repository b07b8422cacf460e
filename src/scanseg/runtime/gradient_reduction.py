"""Mean of gradients over distributed processes, computed during the backward pass."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BYTES_OF_BUCKET = 25 << 20
"""Largest number of bytes that are sent at once. Smaller messages begin earlier and use the links less well."""


@dataclass(eq=False)
class _Bucket:
    """Parameters whose gradients are sent as one message."""

    parameters: list[nn.Parameter]
    flat: Tensor
    """Gradients of all parameters, one after another."""
    views: list[Tensor]
    """Parts of `flat` with the shapes of the parameters."""
    num_missing: int = 0
    """Gradients that the backward pass has yet to compute."""
    work: dist.Work | None = None
    """The message in transit."""


class GradientReduction:
    """Average the gradients of distributed processes during the backward pass.

    Gradients are grouped in the reverse order of the parameters, which is about the order in which they are computed.
    A group is sent when its last gradient is complete, so sending overlaps with the rest of the backward pass. The
    messages may be captured in a CUDA graph.

    After a pass, `grad` of each parameter is a part of its group's memory. The next pass overwrites it.

    Args:
        parameters: All parameters of the network, in the same order on all processes.
        world_size: Number of processes.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, world_size: int) -> None:
        self._world_size = world_size
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[nn.Parameter, _Bucket] = {}
        self._num_sent = 0
        for group in _grouped([parameter for parameter in parameters if parameter.requires_grad]):
            flat = torch.zeros(sum(map(torch.numel, group)), dtype=group[0].dtype, device=group[0].device)
            parts = flat.split([parameter.numel() for parameter in group])
            views = [_laid_out_as(part, parameter) for part, parameter in zip(parts, group, strict=True)]
            self._buckets.append(_Bucket(group, flat, views))
            self._bucket_of |= dict.fromkeys(group, self._buckets[-1])

    @contextmanager
    def during_backward(self) -> Iterator[None]:
        """Average the gradients of the one backward pass in the block.

        Gradients are `None` before the block. Parameters that get no gradient keep `None`. They are the same on all
        processes.
        """
        self._num_sent = 0
        for bucket in self._buckets:
            bucket.num_missing, bucket.work = len(bucket.parameters), None
        with ExitStack() as hooks:
            for parameter in self._bucket_of:
                hooks.callback(parameter.register_post_accumulate_grad_hook(self._note).remove)
            yield
        self._send(self._buckets[self._num_sent :])
        self._receive()

    def _note(self, parameter: Tensor) -> None:
        """Note that a gradient is complete, and send the groups that are."""
        assert isinstance(parameter, nn.Parameter)
        self._bucket_of[parameter].num_missing -= 1
        ready = self._num_sent
        while ready < len(self._buckets) and self._buckets[ready].num_missing == 0:
            ready += 1
        self._send(self._buckets[self._num_sent : ready])

    @torch.no_grad()
    def _send(self, buckets: Sequence[_Bucket]) -> None:
        """Send groups in their order, which all processes share."""
        for bucket in buckets:
            present = [parameter.grad is not None for parameter in bucket.parameters]
            if not all(present):
                bucket.flat.zero_()
            pairs = zip(bucket.views, bucket.parameters, strict=True)
            filled = [(view, parameter.grad) for view, parameter in pairs if parameter.grad is not None]
            if filled:
                torch._foreach_copy_([view for view, _ in filled], [gradient for _, gradient in filled])
            bucket.work = dist.all_reduce(bucket.flat, async_op=True)
            self._num_sent += 1

    @torch.no_grad()
    def _receive(self) -> None:
        """Wait for all groups, and make the means the gradients."""
        for bucket in self._buckets:
            assert bucket.work is not None
            bucket.work.wait()
            bucket.flat.div_(self._world_size)
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                if parameter.grad is not None:
                    parameter.grad = view


def _laid_out_as(part: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a part of memory with the shape and strides of a parameter."""
    is_dense = torch.empty_like(parameter).stride() == parameter.stride()
    return (
        part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
        if is_dense
        else part.view(parameter.shape)
    )


def _grouped(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Group parameters of one type and device, in reverse order."""
    groups: list[list[nn.Parameter]] = []
    num_bytes, kind = 0, None
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        if not groups or kind != (parameter.dtype, parameter.device) or num_bytes + size > _BYTES_OF_BUCKET:
            groups.append([])
            num_bytes, kind = 0, (parameter.dtype, parameter.device)
        groups[-1].append(parameter)
        num_bytes += size
    return groups
