"""Loading of an exported model, which predicts without PyTorch."""

from pathlib import Path

from scanseg.errors import InputError
from scanseg.inference.onnx_networks import OnnxNetworks
from scanseg.inference.postprocessing import NOTHING
from scanseg.inference.predictor import Predictor
from scanseg.inference.sessions import Runtime, import_runtime
from scanseg.specs import ExportedModel, ExportedPart, PostprocessingSpec

EXPORTED_FILE = "model.json"
"""File of the document in the folder of an exported model."""


def is_exported(path: Path) -> bool:
    """Return whether a folder is an exported model.

    Args:
        path: The folder.
    """
    return (path / EXPORTED_FILE).is_file()


def load_exported(path: Path, *, runtime: Runtime = "onnxruntime") -> Predictor:
    """Load an exported model for prediction on the CPU.

    PyTorch is not imported.

    Args:
        path: Folder of the exported model.
        runtime: Library of the computation.

    Returns:
        Predictor of the model, with its first stage (cascade) and its members (ensemble).

    Raises:
        InputError: A file is missing or damaged, or a network does not fit its plan.
        UsageError: The library is not installed.
    """
    import_runtime(runtime)
    document = ExportedModel.read(path / EXPORTED_FILE)

    def make(part: ExportedPart, postprocessing: PostprocessingSpec = NOTHING) -> Predictor:
        _check(part, path)
        return Predictor(
            part.plan,
            OnnxNetworks(path, part, runtime=runtime),
            model=str(path),
            postprocessing=postprocessing,
            first_stage=None if part.first_stage is None else make(part.first_stage),
            members=[make(member) for member in part.members],
            warnings=document.warnings if part is document.model else (),
            temperatures=document.temperatures if part is document.model else None,
        )

    return make(document.model, document.postprocessing)


def _check(part: ExportedPart, path: Path) -> None:
    """Check that the parts of a document fit together.

    Raises:
        InputError: The shape of the windows or the first stage contradicts the plan.
    """
    expected = (part.plan.num_inputs, *part.plan.sampling.patch_size)
    if part.input_shape != expected:
        raise InputError(
            f"{path / EXPORTED_FILE}: input_shape: expected {expected} by the plan, got {part.input_shape}. Export "
            "the model again."
        )
    if (part.plan.cascade is None) != (part.first_stage is None):
        state = "none" if part.first_stage is None else "one"
        raise InputError(
            f"{path / EXPORTED_FILE}: first_stage: expected {'one' if state == 'none' else 'none'} by the plan's "
            f"cascade, got {state}. Export the model again."
        )
