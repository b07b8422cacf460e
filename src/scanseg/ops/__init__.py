"""Operators on plain tensors, each with several backends.

`selective_scan`, `ss2d_scan` and `mlstm` read sequences. `instance_norm`, `channel_norm`, `depthwise_conv` and
`normed_depthwise_conv` are the norms and convolutions around them in the networks. `ss2d_branch` and `feed_forward`
are whole branches of a block. `segmentation_sums` computes the sums of the losses.

Each operator is a package with the same files: `reference.py` (the definition in PyTorch), `pytorch_backend.py` (fast
PyTorch code), `plain_backend.py` (PyTorch's own operators only, for `torch.export`), `triton_backend.py` (custom
operators on GPUs) with its kernels, and `numba_backend.py` (compiled for CPUs). `_support` holds the parts that all
operators share.
"""

from typing import NamedTuple

from scanseg.ops._support.branch import BranchStart, is_one_operator
from scanseg.ops._support.compile_processes import start_compile_processes
from scanseg.ops._support.contract import without_autocast
from scanseg.ops._support.launching import (
    can_compile_ahead,
    compile_ahead,
    cores_for_compiling,
    is_compiling_ahead,
)
from scanseg.ops._support.pass_weights import Wanted, weights_converted
from scanseg.ops.channel_norm import BACKENDS as _CHANNEL_NORM
from scanseg.ops.channel_norm import channel_norm, residual_channel_norm
from scanseg.ops.depthwise import BACKENDS as _DEPTHWISE
from scanseg.ops.depthwise import depthwise_conv
from scanseg.ops.feed_forward import BACKENDS as _FEED_FORWARD
from scanseg.ops.feed_forward import feed_forward, merged_kernel
from scanseg.ops.feed_forward.triton_backend import wanted_weights as wanted_by_feed_forward
from scanseg.ops.instance_norm import BACKENDS as _INSTANCE_NORM
from scanseg.ops.instance_norm import instance_norm
from scanseg.ops.mlstm import BACKENDS as _MLSTM
from scanseg.ops.mlstm import mlstm
from scanseg.ops.mlstm.triton_layout import mlstm_state_bytes
from scanseg.ops.normed_depthwise import BACKENDS as _NORMED_DEPTHWISE
from scanseg.ops.normed_depthwise import normed_depthwise_conv
from scanseg.ops.normed_depthwise.triton_backend import wanted_weights as wanted_by_normed_depthwise
from scanseg.ops.pass_layers import convolve, linear, scaled_sum, wanted_by_layer
from scanseg.ops.segmentation_sums import BACKENDS as _SEGMENTATION_SUMS
from scanseg.ops.segmentation_sums import masks_of, segmentation_sums
from scanseg.ops.selective_scan import BACKENDS as _SELECTIVE_SCAN
from scanseg.ops.selective_scan import selective_scan
from scanseg.ops.ss2d import BACKENDS as _SS2D
from scanseg.ops.ss2d import ss2d_scan
from scanseg.ops.ss2d.kept_states import scan_state_bytes
from scanseg.ops.ss2d_branch import BACKENDS as _SS2D_BRANCH
from scanseg.ops.ss2d_branch import ss2d_branch
from scanseg.ops.ss2d_branch.triton_backend import wanted_weights as wanted_by_ss2d_branch
from scanseg.ops.upsample_join import BACKENDS as _UPSAMPLE_JOIN
from scanseg.ops.upsample_join import upsample_join
from scanseg.ops.verification import KernelCheck, KernelVerdict, kernel_verdicts, verify_kernels

__all__ = [
    "BackendStatus",
    "BranchStart",
    "KernelCheck",
    "KernelVerdict",
    "Wanted",
    "can_compile_ahead",
    "channel_norm",
    "compile_ahead",
    "convolve",
    "cores_for_compiling",
    "depthwise_conv",
    "describe_backends",
    "feed_forward",
    "instance_norm",
    "is_compiling_ahead",
    "is_one_operator",
    "kernel_verdicts",
    "linear",
    "masks_of",
    "merged_kernel",
    "mlstm",
    "mlstm_state_bytes",
    "normed_depthwise_conv",
    "residual_channel_norm",
    "scaled_sum",
    "scan_state_bytes",
    "segmentation_sums",
    "selective_scan",
    "ss2d_branch",
    "ss2d_scan",
    "start_compile_processes",
    "upsample_join",
    "verify_kernels",
    "wanted_by_feed_forward",
    "wanted_by_layer",
    "wanted_by_normed_depthwise",
    "wanted_by_ss2d_branch",
    "weights_converted",
    "without_autocast",
]


class BackendStatus(NamedTuple):
    """Availability of one backend on this machine.

    Attributes:
        operator: Name of the operator.
        backend: Name of the backend, a value of the operator's `backend` argument.
        reason: Why the backend is unavailable, with advice. `None`: it is available.
    """

    operator: str
    backend: str
    reason: str | None


def describe_backends() -> list[BackendStatus]:
    """List every backend of every operator, in order of preference.

    Returns:
        The backends. An unavailable backend has a reason.

    Example:
        >>> from scanseg.ops import describe_backends
        >>> [status.backend for status in describe_backends() if status.operator == "mlstm"]
        ['triton', 'chunked', 'plain', 'reference']
    """
    tables = {
        "selective_scan": _SELECTIVE_SCAN,
        "ss2d_scan": _SS2D,
        "mlstm": _MLSTM,
        "instance_norm": _INSTANCE_NORM,
        "upsample_join": _UPSAMPLE_JOIN,
        "channel_norm": _CHANNEL_NORM,
        "depthwise_conv": _DEPTHWISE,
        "normed_depthwise_conv": _NORMED_DEPTHWISE,
        "ss2d_branch": _SS2D_BRANCH,
        "feed_forward": _FEED_FORWARD,
        "segmentation_sums": _SEGMENTATION_SUMS,
    }
    return [
        BackendStatus(operator, name, backend.unavailable)
        for operator, table in tables.items()
        for name, backend in table.items()
    ]
