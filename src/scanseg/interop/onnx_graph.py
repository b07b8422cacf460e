"""Networks of PyTorch as ONNX graphs."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO

import torch
from torch import Tensor, nn

from scanseg.errors import ScansegError, UsageError
from scanseg.messages import shortened

DEFAULT_OPSET = 20
"""Version of the ONNX operators, the oldest that is supported."""
HIGHEST_OPSET = 23
"""Newest version of the ONNX operators that PyTorch 2.11 can write."""
MOST_BYTES = 2**31 - 2**27
"""Largest size of the weights. An ONNX file holds at most 2 GiB."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")
_LONGEST_REASON = 300


def require_exporter() -> None:
    """Check that the packages of the export are installed.

    Raises:
        UsageError: A package is missing.
    """
    for name in _PACKAGES:
        try:
            import_module(name)
        except ImportError as error:
            raise UsageError(
                f"export onnx: expected the package {name}, which cannot be imported ({error}). "
                'Run: pip install "scanseg[onnx]"'
            ) from error


def to_onnx(network: nn.Module, windows: Tensor, *, opset: int, name: str) -> bytes:
    """Return a network as an ONNX file with the input `windows` and the output `logits`.

    The batch axis is free. The example fixes channels and voxels, since some networks have their sizes in the graph.
    Recurrences are computed in chunks, without `Loop`.

    Args:
        network: Network in evaluation mode on the CPU.
        windows: Example of at least two windows (batch, channel, *patch).
        opset: Version of the ONNX operators, from 20.
        name: Name of the network, for messages.

    Raises:
        UsageError: The version of the operators is not supported.
        ScansegError: The weights exceed an ONNX file, or PyTorch cannot export the network.
    """
    if not DEFAULT_OPSET <= opset <= HIGHEST_OPSET:
        raise UsageError(
            f"opset {opset}: expected {DEFAULT_OPSET} to {HIGHEST_OPSET}. Choose {DEFAULT_OPSET}."
        )
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MOST_BYTES:
        raise ScansegError(
            f"{name}: expected weights of at most {MOST_BYTES / 2**30:.2f} GiB for an ONNX file, got "
            f"{size / 2**30:.2f} GiB. Predict with PyTorch."
        )
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                network,
                (windows,),
                dynamo=True,
                opset_version=opset,
                input_names=["windows"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = shortened(" ".join(str(error).split()), _LONGEST_REASON)
        raise ScansegError(
            f"{name}: PyTorch cannot export the network ({reason}). Predict with PyTorch."
        ) from error
    if program is None:
        raise ScansegError(f"{name}: PyTorch exported no network. Predict with PyTorch.")
    return program.model_proto.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the notes of the exporter."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
