"""Floor of a call: bytes over bandwidth, or operations over their rate."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HARDWARE: dict[str, dict[str, float]] = json.loads(
    (Path(__file__).parent / "hardware.json").read_text(encoding="utf-8")
)
"""Rates of known GPUs in units per second, by a part of their name."""

_RATES = {torch.float32: "float32_flops", torch.bfloat16: "half_flops", torch.float16: "half_flops"}


@dataclass(frozen=True)
class Work:
    """Least work of a call.

    Attributes:
        num_bytes: Bytes read from and written to memory.
        flops: Multiplications and additions of matrix products.
        special: Exponentials, logarithms and reciprocals.
    """

    num_bytes: float = 0
    flops: float = 0
    special: float = 0


def rates_of(device_name: str) -> dict[str, float] | None:
    """Return the rates of a device, or None if they are unknown."""
    return next((rates for part, rates in HARDWARE.items() if part in device_name), None)


def floor_seconds(work: Work, *, dtype: torch.dtype, tf32: bool, rates: dict[str, float]) -> float:
    """Return the longest of the times of the parts of the work.

    Args:
        work: The work.
        dtype: Dtype of the operands of products.
        tf32: Products of float32 are rounded to TF32.
        rates: Rates of the device.
    """
    rate = "tf32_flops" if tf32 and dtype == torch.float32 else _RATES.get(dtype, "float32_flops")
    return max(
        work.num_bytes / rates["bytes"], work.flops / rates[rate], work.special / rates["special_functions"]
    )


def ss2d_core_work(
    batch: int, dim: int, length: int, *, rank: int, state: int, itemsize: int, backward: bool
) -> Work:
    """Return the work of the SS2D core.

    Forward reads the map and writes the normalised sum. Backward reads the map and the gradient of the result, and
    writes the gradient of the map. A step of a direction takes an exponential and a logarithm (softplus), and an
    exponential for each state. Backward takes these again, and a reciprocal.
    """
    elements = batch * dim * length
    flops = 2 * batch * length * dim * 4 * (2 * rank + 2 * state)
    special = 4 * elements * (2 + state)
    if backward:
        return Work(5 * elements * itemsize, 3 * flops, 2 * special + 4 * elements)
    return Work(2 * elements * itemsize, flops, special)


def mlstm_work(shape: Sequence[int], *, itemsize: int, backward: bool) -> Work:
    """Return the work of the mLSTM cell.

    Forward reads q, k, v and writes h. Its operations are the cheaper of the recurrence and the causal square. Backward
    reads q, k, v and the gradient of h, writes three gradients, and computes twice as much.

    Args:
        shape: Batch, heads, tokens, features of a head.
        itemsize: Bytes of an element.
        backward: Forward and backward, not forward alone.
    """
    elements, tokens, dim = math.prod(shape), shape[2], shape[3]
    flops = elements * min(2 * tokens, 4 * dim)
    return Work(11 * elements * itemsize, 3 * flops) if backward else Work(4 * elements * itemsize, flops)


def counted_floor_seconds(call: Callable[[], object], *, tf32: bool, rates: dict[str, float]) -> float:
    """Run a call and sum the floors of its operations.

    Convolutions, products and own operators count. Each reads its operands and writes its results once. Norms,
    activations, sums and copies are free, as if all were fused into these. Own operators (not part of PyTorch) count by
    their bytes alone.
    """
    with _FloorCounter(tf32=tf32, rates=rates) as counter:
        call()
    return counter.seconds


class _FloorCounter(TorchDispatchMode):
    """Sums the floors of all dispatched operations."""

    def __init__(self, *, tf32: bool, rates: dict[str, float]) -> None:
        super().__init__()
        self.seconds = 0.0
        self._tf32, self._rates = tf32, rates

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        flops = _flops(func, args, result)
        if flops is not None:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            work = Work(sum(tensor.numel() * tensor.element_size() for tensor in tensors), flops)
            dtype = tensors[0].dtype if tensors else torch.float32
            self.seconds += floor_seconds(work, dtype=dtype, tf32=self._tf32, rates=self._rates)
        return result


def _flops(func: Any, args: tuple[Any, ...], result: Any) -> float | None:
    """Count the operations of a product or convolution.

    The count is 0 for an operator outside PyTorch, and None for all others.
    """
    if func.namespace not in ("aten", "prim", "prims", "profiler", "c10d", "inductor"):
        return 0.0
    name = func._schema.name.removeprefix("aten::")
    if name in ("mm", "bmm"):
        return 2.0 * result.numel() * args[0].shape[-1]
    if name in ("addmm", "baddbmm"):
        return 2.0 * result.numel() * args[1].shape[-1]
    if name == "convolution":
        return _convolution_flops(args[0], args[1], result, transposed=args[6])
    if name == "convolution_backward":
        grad, image, weight = args[:3]
        return sum(args[10][:2]) * _convolution_flops(image, weight, grad, transposed=args[7])
    return None


def _convolution_flops(image: Tensor, weight: Tensor, output: Tensor, *, transposed: bool) -> float:
    """Count the operations of a convolution.

    There is one filter per element of the output, or of the input if transposed.
    """
    return 2.0 * (image if transposed else output).numel() * weight.numel() / len(weight)
