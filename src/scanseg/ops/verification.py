"""Comparison of the Triton kernels with float64 on this machine.

Kernels are compiled for each GPU by the installed Triton. Some versions of Triton have compiled public kernels to wrong
code for some GPUs, without an error (flash-linear-attention#640, mlstm_kernels#16).
"""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scanseg.ops._support.branch import BranchStart
from scanseg.ops._support.first_use import Comparer, Comparison, kept_verdicts, record, set_comparer
from scanseg.ops._support.launching import compile_ahead, cores_for_compiling
from scanseg.ops._support.triton import INTERPRETED, MISSING
from scanseg.ops._support.verdicts import Verdict
from scanseg.ops.channel_norm import residual_channel_norm
from scanseg.ops.depthwise import depthwise_conv
from scanseg.ops.feed_forward import feed_forward
from scanseg.ops.instance_norm import instance_norm
from scanseg.ops.mlstm import mlstm
from scanseg.ops.normed_depthwise import normed_depthwise_conv
from scanseg.ops.segmentation_sums import segmentation_sums
from scanseg.ops.ss2d import ss2d_scan
from scanseg.ops.ss2d_branch import ss2d_branch
from scanseg.ops.upsample_join import upsample_join
from scanseg.runtime import lacks_memory

_LOGGER = logging.getLogger(__name__)

BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 5e-2}
"""Largest relative error of results and gradients. Wrong code exceeds it by far, and rounding does not reach it."""

BOUND_OF_TF32 = 5e-3
"""Bound in float32 if PyTorch's settings allow TF32."""

Inputs = Mapping[str, Any]


class KernelCheck(NamedTuple):
    """Comparison of one operator.

    Attributes:
        operator: Name of the operator.
        dtype: Name of the dtype.
        error: Largest relative error ||y - y64|| / ||y64|| of the result and the gradients. NaN: there is none.
        bound: Largest error that passes.
        failure: Error of compiling or running the kernels. `None`: they ran.
    """

    operator: str
    dtype: str
    error: float
    bound: float
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the kernels ran and the error is within the bound. NaN is not."""
        return self.failure is None and self.error <= self.bound

    @property
    def fault(self) -> str | None:
        """Why the kernels cannot be used. `None`: they are correct."""
        if self.passed:
            return None
        if self.failure is not None:
            return f"they failed ({self.failure})"
        if math.isnan(self.error):
            return "their results are not numbers (NaN)"
        return f"their results are wrong (relative error {self.error:.1g}, expected at most {self.bound:g})"


class KernelVerdict(NamedTuple):
    """Kept result of the check of one operator.

    Attributes:
        device: Name of the GPU, such as `cuda:0`.
        operator: Name of the operator.
        dtype: Name of the dtype.
        passed: Whether the kernels are correct. Otherwise another backend computes.
        fault: Why they are not used. `None`: they are correct.
        date: Day of the check, as YYYY-MM-DD.
    """

    device: str
    operator: str
    dtype: str
    passed: bool
    fault: str | None
    date: str


_OF_START = ("x", "added", "start_weight", "start_bias")
"""Inputs of the norm before a branch."""


class _Case(NamedTuple):
    """Shapes of an operator's inputs, and its call."""

    shapes: Mapping[str, tuple[int, ...]]
    call: Callable[[Inputs, str | None], Tensor]


def verify_kernels(device: torch.device) -> list[KernelCheck]:
    """Compare every operator with Triton kernels with float64, forward and gradients.

    Results on a GPU replace the kept ones, which decide on the use of the kernels.

    Args:
        device: A GPU with CUDA.

    Returns:
        One comparison for each operator and dtype. Without Triton, none.

    Example:
        >>> import torch
        >>> from scanseg.ops import verify_kernels
        >>> gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
        >>> all(check.passed for gpu in gpus for check in verify_kernels(gpu))
        True
    """
    if MISSING is not None:
        return []
    dtypes = [torch.float32]
    if device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0):
        dtypes.append(torch.bfloat16)
    pairs = [(name, dtype) for name in _cases(device) for dtype in dtypes]
    with torch.autograd.set_multithreading_enabled(False):
        if not INTERPRETED:
            with compile_ahead(cores_for_compiling()):
                for name, dtype in pairs:
                    _request(name, dtype, device)
        checks = [check for name, dtype in pairs if (check := _check(name, dtype, device)) is not None]
    if device.type == "cuda":
        record(device, map(_verdict, checks))
    return checks


def kernel_verdicts() -> list[KernelVerdict]:
    """Return the kept verdicts about Triton kernels on this machine's GPUs.

    The first use of an operator checks its kernels, and `verify_kernels` checks all. The results of other versions of
    PyTorch, Triton, cuDNN, the driver and this package are left out.

    Example:
        >>> from scanseg.ops import kernel_verdicts
        >>> all(verdict.passed for verdict in kernel_verdicts())
        True
    """
    found = []
    for number in range(torch.cuda.device_count() if MISSING is None else 0):
        for verdict in kept_verdicts(torch.device("cuda", number)):
            facts = (verdict.operator, verdict.dtype, verdict.passed, verdict.fault, verdict.date)
            found.append(KernelVerdict(f"cuda:{number}", *facts))
    return found


def _verdict(check: KernelCheck) -> Verdict:
    error = check.error if math.isfinite(check.error) else None
    return Verdict(check.operator, check.dtype, check.fault, error, date.today().isoformat())


def _compare(name: str, dtype: torch.dtype, device: torch.device) -> Comparison | None:
    """Compile the kernels of an operator in threads, and compare it."""
    if not INTERPRETED:
        with compile_ahead(cores_for_compiling()):
            _request(name, dtype, device)
    check = _check(name, dtype, device)
    return None if check is None else (check.fault, _verdict(check).error)


def _request(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """Run the kernels of an operator inside `compile_ahead`."""
    case = _cases(device)[name]
    with suppress(Exception), torch.autograd.set_multithreading_enabled(False):
        _results(case, _inputs(case, dtype, device), "triton")


def _check(name: str, dtype: torch.dtype, device: torch.device) -> KernelCheck | None:
    """Compare an operator. `None`: the reference cannot be computed, or memory ran out."""
    case = _cases(device)[name]
    bound = BOUNDS[dtype]
    if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        bound = BOUND_OF_TF32
    try:
        inputs = _inputs(case, dtype, device)
        expected = _results(case, {key: tensor.double() for key, tensor in inputs.items()}, None)
        largest = max(tensor.norm().item() for tensor in expected)
    except RuntimeError as error:  # deterministic algorithms are wanted and missing, for example
        _LOGGER.warning("the GPU kernels of %s are used unchecked: %s", name, _reason_of(error))
        return None
    checked = (name, str(dtype).removeprefix("torch."))
    try:
        found = _results(case, inputs, "triton")
        # A gradient that vanishes by an invariance is measured against a hundredth of the largest one.
        errors = [
            (tensor.double() - wanted).norm().item() / max(wanted.norm().item(), 1e-2 * largest)
            for tensor, wanted in zip(found, expected, strict=True)
        ]
    except Exception as error:
        if lacks_memory(error):
            _LOGGER.warning("the GPU kernels of %s are used unchecked: %s", name, _reason_of(error))
            return None
        return KernelCheck(*checked, math.nan, bound, f"{type(error).__name__}: {_reason_of(error)}")
    return KernelCheck(*checked, math.nan if any(map(math.isnan, errors)) else max(errors), bound)


def _reason_of(error: Exception) -> str:
    """Return the line of a message with the reason. Triton's messages have it at the end, after the source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "no message"
    return lines[-1] if lines[0].startswith("at ") else lines[0]


def _inputs(case: _Case, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Return random inputs, the same ones in each call."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: (0.3 * torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")).to(
            device, dtype
        )
        for key, shape in case.shapes.items()
    }


def _results(case: _Case, inputs: Inputs, backend: str | None) -> list[Tensor]:
    """Return the result and the gradients of all inputs."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    with torch.enable_grad():
        result = case.call(leaves, backend)
    weights = torch.linspace(-1, 1, result.numel(), device=result.device, dtype=torch.float64)
    grads = torch.autograd.grad(result, list(leaves.values()), weights.view_as(result).to(result.dtype))
    return [result.detach(), *grads]


def _cases(device: torch.device) -> dict[str, _Case]:
    """Return one call of each operator.

    Sizes take the kernels of long sequences and large maps.
    """
    dim, space, channel = 32, (2, 32, 9, 7), {"weight": (32,), "bias": (32,)}
    label_map = torch.arange(2 * 9 * 7, device=device).view(2, 9, 7) % 3
    scan = {
        "projected": (2, 4, 4, 9, 8),
        "dt_weight": (4, dim, 2),
        "dt_bias": (4, dim),
        "A_log": (4, dim, 1),
        "D_skip": (4, dim),
    }
    branch = {name: shape for name, shape in scan.items() if name != "projected"} | {
        "in_weight": (dim, dim),
        "conv_weight": (dim, 1, 3, 3),
        "x_weight": (4, 4, dim),
        "norm_weight": (dim,),
        "norm_bias": (dim,),
        "out_weight": (dim, dim),
    }
    start = {"x": space, "added": space, "start_weight": (dim,), "start_bias": (dim,)}
    mixing = {
        "weight1": (48, dim),
        "bias1": (48,),
        "weight2": (dim, 48),
        "bias2": (dim,),
        "kernel": (48, 1, 3, 3),
    }
    # On a GPU there are several chunks, whose states are kept in bfloat16. The interpreter takes one of several blocks.
    token = 160 if INTERPRETED else 1100
    heads = dict.fromkeys("qkv", (1, 1, token, 128))
    return {
        "instance_norm": _Case(
            {"x": (2, 32, 40, 40), **channel, "residual": (2, 32, 40, 40)},
            lambda i, backend: instance_norm(**i, negative_slope=0.1, backend=backend),
        ),
        "channel_norm": _Case(
            {"x": space, "added": space, **channel},
            lambda i, backend: residual_channel_norm(**i, backend=backend)[1],
        ),
        "depthwise_conv": _Case(
            {"x": space, "weight": (32, 1, 3, 3)},
            lambda i, backend: depthwise_conv(**i, activation="silu", backend=backend),
        ),
        "normed_depthwise_conv": _Case(
            {"x": space, "weight": (32, 1, 3, 3), "bias": (32,), "norm_weight": (32,), "norm_bias": (32,)},
            lambda i, backend: normed_depthwise_conv(
                **i,
                running_mean=torch.zeros_like(i["bias"], requires_grad=False),
                running_var=torch.ones_like(i["bias"], requires_grad=False),
                momentum=0.1,
                backend=backend,
            ),
        ),
        "upsample_join": _Case(
            {"x": (2, 16, 5, 4), "skip": (2, 8, 10, 8)},
            lambda i, backend: upsample_join(
                *(tensor.contiguous(memory_format=torch.channels_last) for tensor in (i["x"], i["skip"])),
                factors=(2, 2),
                backend=backend,
            ),
        ),
        "segmentation_sums": _Case(
            {"logits": (2, 3, 9, 7)},
            lambda i, backend: segmentation_sums(
                i["logits"], label_map, groups=((0,), (1,), (2,)), regions=False, backend=backend
            ).cross_entropy.view(1),
        ),
        "ss2d_scan": _Case({"x": (2, dim, 9, 8), **scan}, lambda i, backend: ss2d_scan(**i, backend=backend)),
        "mlstm": _Case(
            {**heads, "igate": (1, 1, token), "fgate": (1, 1, token)},
            lambda i, backend: mlstm(**i, backend=backend),
        ),
        "ss2d_branch": _Case(
            {**start, **branch}, lambda i, backend: _branch(ss2d_branch, i, backend=backend)
        ),
        "feed_forward": _Case(
            {**start, **mixing}, lambda i, backend: _branch(_feed_forward, i, backend=backend)
        ),
    }


def _branch(operator: Callable[..., tuple[Tensor, Tensor]], inputs: Inputs, *, backend: str | None) -> Tensor:
    """Return the results of a branch side by side, twice.

    The second call is that of autocast in 16 bits: map and parameters are float32 at least.
    """
    dtype = inputs["x"].dtype
    wide = torch.promote_types(dtype, torch.float32)
    results = _run_branch(operator, inputs, dtype=dtype, backend=backend)
    again = results
    if wide != dtype:
        widened = {name: tensor if name == "added" else tensor.to(wide) for name, tensor in inputs.items()}
        again = _run_branch(operator, widened, dtype=dtype, backend=backend)
    return torch.cat([*results, *(each.to(dtype) for each in again)], dim=1)


def _run_branch(
    operator: Callable[..., tuple[Tensor, Tensor]], inputs: Inputs, *, dtype: torch.dtype, backend: str | None
) -> tuple[Tensor, Tensor]:
    first = BranchStart(inputs["x"], inputs["added"], None, inputs["start_weight"], inputs["start_bias"])
    rest = {name: tensor for name, tensor in inputs.items() if name not in _OF_START}
    return operator(first, **rest, dtype=dtype, backend=backend)


def _feed_forward(
    start: BranchStart, *, kernel: Tensor, backend: str | None, **parameters: Any
) -> tuple[Tensor, Tensor]:
    return feed_forward(start, **parameters, kernels=(kernel,), backend=backend)


set_comparer(Comparer(_request, _compare))
