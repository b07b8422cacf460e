"""Export of a whole model to ONNX: networks, and the document of everything else."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scanseg.cores import choose_threads
from scanseg.errors import ScansegError, UsageError
from scanseg.files import is_unused, new_folder, write_text
from scanseg.inference import EXPORTED_FILE, Predictor, is_exported, load, open_session, run_session
from scanseg.interop.onnx_graph import DEFAULT_OPSET, require_exporter, to_onnx
from scanseg.models import LogitEnsemble, Weights
from scanseg.progress import ProgressCallback, ProgressUpdate, ignore_progress
from scanseg.specs import ExportedModel, ExportedNetwork, ExportedPart
from scanseg.version import __version__

TOLERANCE = 1e-3
"""Largest difference of logits from PyTorch, as a fraction of the largest logit or of 1."""
_BATCHES = (1, 3)
"""Numbers of random windows that are compared. The graph is made with two."""


@dataclass
class _Export:
    """An export into a folder."""

    folder: Path
    source: Path
    opset: int
    total: int
    """Number of networks."""
    progress: ProgressCallback
    done: int = 0
    """Number of exported networks."""

    def write(self, network: nn.Module, shape: tuple[int, ...]) -> ExportedNetwork:
        """Write and compare one network.

        Args:
            network: The network.
            shape: Shape of a window: channels and voxels.
        """
        file = f"network-{self.done}.onnx"
        self.progress(ProgressUpdate("exporting", self.done, self.total, file))
        content = to_onnx(
            network, torch.zeros(2, *shape), opset=self.opset, name=f"{self.source}, network {self.done}"
        )
        exported = _compare(network, content, shape, file=file, source=self.source)
        (self.folder / file).write_bytes(content)
        self.done += 1
        self.progress(ProgressUpdate("exporting", self.done, self.total, file))
        return exported


def export_onnx(
    model: Path,
    output: Path,
    *,
    weights: Weights = "exported",
    opset: int = DEFAULT_OPSET,
    progress: ProgressCallback = ignore_progress,
) -> ExportedModel:
    """Export a model as ONNX files with a document.

    The folder has one file for each network, and `model.json` with the plan, the postprocessing and checksums. The
    logits of each file by onnxruntime are compared with PyTorch's on random windows.

    Args:
        model: Model folder, or folder of a cross-validation. Cascades and ensembles are exported with all networks.
        output: Folder to write. It must be missing or empty. It appears when it is complete.
        weights: Weights to export: `exported`, `last` or `best`.
        opset: Version of the ONNX operators, from 20.
        progress: Called with each progress update.

    Returns:
        The document.

    Raises:
        InputError: The folder is not a model folder, or its training has no weights yet.
        UsageError: A package is missing, the output exists, or the model is exported already.
        ScansegError: A network cannot be exported, or its logits differ by more than `TOLERANCE`.
    """
    require_exporter()
    if is_exported(model):
        raise UsageError(f"{model}: expected a model folder, got an exported model. Copy the folder instead.")
    if output.exists() and not (output.is_dir() and is_unused(output)):
        raise UsageError(f"{output}: expected a new or empty folder, but it exists. Choose another folder.")
    predictor = load(model, device="cpu", weights=weights, precision="float32")
    with new_folder(output) as folder:
        total = sum(1 for part in _parts(predictor) for _ in _networks(part))
        export = _Export(folder, model, opset, total, progress)
        document = ExportedModel(
            scanseg=__version__,
            torch=torch.__version__,
            source=predictor.model,
            model_digest=predictor.compute_digest(),
            opset=opset,
            tolerance=TOLERANCE,
            model=_export_part(predictor, export),
            postprocessing=predictor.postprocessing,
            temperatures=predictor.temperatures,
            warnings=predictor.warnings,
        )
        write_text(folder / EXPORTED_FILE, document.to_json())
    return document


def _parts(predictor: Predictor) -> Iterator[Predictor]:
    """Yield a predictor, its first stage and its members."""
    yield predictor
    for further in (predictor.first_stage, *predictor.members):
        if further is not None:
            yield from _parts(further)


def _networks(predictor: Predictor) -> Iterator[nn.Module]:
    """Yield the networks of the plan of a predictor."""
    if isinstance(predictor.network, LogitEnsemble):
        yield from predictor.network.networks
    else:
        yield predictor.network


def _export_part(predictor: Predictor, export: _Export) -> ExportedPart:
    """Export the networks of a predictor, its first stage and its members."""
    shape = (predictor.plan.num_inputs, *predictor.plan.sampling.patch_size)
    return ExportedPart(
        plan=predictor.plan,
        input_shape=shape,
        networks=tuple(export.write(network, shape) for network in _networks(predictor)),
        first_stage=None if predictor.first_stage is None else _export_part(predictor.first_stage, export),
        members=tuple(_export_part(member, export) for member in predictor.members),
    )


@torch.inference_mode()
def _compare(
    network: nn.Module, content: bytes, shape: tuple[int, ...], *, file: str, source: Path
) -> ExportedNetwork:
    """Compare the logits of a file with PyTorch's.

    Raises:
        ScansegError: A difference exceeds the tolerance.
    """
    name = f"{source}, {file}"
    session = open_session(
        content,
        source=name,
        runtime="onnxruntime",
        num_threads=choose_threads(os.environ),
        input_shape=shape,
    )
    generator = np.random.default_rng(0)
    differences, largest = [0.0], [0.0]
    for batch in _BATCHES:
        windows = generator.standard_normal((batch, *shape), dtype=np.float32)
        expected = network(torch.from_numpy(windows)).numpy()
        logits = run_session(session, windows, source=name, runtime="onnxruntime")
        if logits.shape != expected.shape:
            raise ScansegError(
                f"{name}: expected logits of shape {expected.shape}, got {logits.shape}. Nothing was written. Predict "
                "with PyTorch."
            )
        differences.append(float(np.abs(logits - expected).max()))
        largest.append(float(np.abs(expected).max()))
    difference, bound = max(differences), TOLERANCE * max(1.0, *largest)
    if not difference <= bound:
        raise ScansegError(
            f"{name}: expected logits within {bound:.2g} of PyTorch's, got a difference of {difference:.2g}. "
            "Nothing was written. Predict with PyTorch."
        )
    return ExportedNetwork(
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        largest_difference=difference,
        largest_logit=max(largest),
    )
