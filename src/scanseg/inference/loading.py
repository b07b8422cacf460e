"""Loading of a model folder or an exported model as a predictor."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.errors import UsageError
from scanseg.inference.exported import is_exported, load_exported
from scanseg.inference.postprocessing import NOTHING
from scanseg.inference.predictor import Predictor
from scanseg.inference.sessions import Runtime

if TYPE_CHECKING:
    import torch

    from scanseg.models import LoadedModel, Weights
    from scanseg.runtime import Precision


def load(
    path: Path | str,
    *,
    device: str = "auto",
    weights: "Weights" = "exported",
    precision: "Precision | None" = None,
    cuda_graph: bool = True,
    runtime: Runtime | None = None,
) -> Predictor:
    """Load a model for prediction.

    Args:
        path: Model folder, folder of a cross-validation, whose folds predict as an ensemble, or an exported model.
        device: Name of the device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`. Exported models run on the CPU.
        weights: Weights to load: `exported`, `last` or `best` (highest Dice on validation patches). If the training
            has not finished, `exported` loads the weights of its last checkpoint, and predictions have a warning.
        precision: Precision of the network's products. `None`: that of the plan's training. Exported models compute in
            float32.
        cuda_graph: Replay passes as a CUDA graph on a GPU with CUDA, see `Predictor`.
        runtime: Library that computes an exported model: `onnxruntime` (the default) or `openvino`.

    Returns:
        Predictor of the model, with its first stage (cascade) and its members (ensemble).

    Raises:
        InputError: The folder is not a model folder, or its training has no weights yet.
        UsageError: The device is not available, or does not support the precision. An option does not fit the kind of
            model, or a library is not installed.
        ScansegError: The network does not fit into memory.
    """
    path = Path(path)
    if is_exported(path):
        _refuse_options(path, device=device, weights=weights, precision=precision)
        return load_exported(path, runtime=runtime or "onnxruntime")
    if runtime is not None:
        raise UsageError(
            f"runtime {runtime}: expected an exported model, got {path}, which PyTorch computes. Export it by "
            f"scanseg export onnx {path} -o FOLDER, or leave out the runtime."
        )
    from scanseg.models import load_model
    from scanseg.runtime import choose_device

    chosen = choose_device(device)
    model = load_model(path, device=chosen, weights=weights)
    name = str(path) if weights == "exported" else f"{path} ({weights} weights)"
    return _predictor_of(model, name, device=chosen, precision=precision, cuda_graph=cuda_graph)


def _refuse_options(path: Path, *, device: str, weights: "Weights", precision: "Precision | None") -> None:
    """Refuse options that an exported model does not have.

    Raises:
        UsageError: An option is set.
    """
    for name, value, accepted in (
        ("device", str(device), ("auto", "cpu")),
        ("weights", weights, ("exported",)),
        ("precision", precision, (None, "auto", "float32")),
    ):
        if value not in accepted:
            raise UsageError(
                f"{name} {value}: expected {accepted[-1]} for the exported model {path}. Leave out the option, or "
                "predict with the model folder that it was exported from."
            )


def _predictor_of(
    model: "LoadedModel",
    name: str,
    *,
    device: "torch.device",
    precision: "Precision | None",
    cuda_graph: bool,
) -> Predictor:
    """Return the predictor of a loaded model, with first stage and members.

    The labels of a first stage are not postprocessed, as in the training of the second stage.
    """

    def make(part: "LoadedModel") -> Predictor:
        return _predictor_of(part, name, device=device, precision=precision, cuda_graph=cuda_graph)

    return Predictor(
        model.plan,
        model.network,
        device=device,
        model=name,
        postprocessing=model.postprocessing,
        first_stage=None
        if model.first_stage is None
        else make(replace(model.first_stage, postprocessing=NOTHING)),
        members=[make(member) for member in model.members],
        precision=precision,
        cuda_graph=cuda_graph,
        warnings=model.warnings,
        temperatures=model.temperatures,
    )
