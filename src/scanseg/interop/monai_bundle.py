"""Export of a model as a bundle of MONAI."""

import json
import platform
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scanseg.errors import InputError, UsageError
from scanseg.files import is_unused, new_folder, write_text
from scanseg.inference import Predictor, is_exported, load
from scanseg.models import PLAN_FILE, LogitEnsemble, Weights, load_weights, network_of
from scanseg.runtime import installed_versions
from scanseg.specs import Plan, PostprocessingSpec
from scanseg.version import __version__

_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
_OLDEST_MONAI = "1.5.0"


def export_monai(model: Path, output: Path, *, weights: Weights = "exported") -> Path:
    """Write a model as a bundle of MONAI.

    Args:
        model: Model folder, or folder of a cross-validation with one recipe.
        output: Folder to write. It must be missing or empty. It appears when it is complete.
        weights: Weights to export: `exported`, `last` or `best`.

    Returns:
        The output.

    Raises:
        InputError: The folder is not a model folder, or its training has no weights yet.
        UsageError: The output exists, or the model is a cascade, an ensemble of several plans, or exported already.
    """
    if is_exported(model):
        raise UsageError(f"{model}: expected a model folder, got an exported model. Export the model folder.")
    if output.exists() and not (output.is_dir() and is_unused(output)):
        raise UsageError(f"{output}: expected a new or empty folder, but it exists. Choose another folder.")
    predictor = load(model, device="cpu", weights=weights, precision="float32")
    if predictor.members or predictor.first_stage is not None:
        kind = "an ensemble of several plans" if predictor.members else "a cascade"
        raise UsageError(
            f"{model}: expected a model with one plan, got {kind}. Export one recipe or stage of it, or all of it "
            "by scanseg export onnx."
        )
    with new_folder(output) as folder:
        for name in ("configs", "models", "docs"):
            (folder / name).mkdir()
        torch.save(predictor.network.state_dict(), folder / "models" / "model.pt")
        write_text(folder / "configs" / PLAN_FILE, predictor.plan.to_json())
        write_text(folder / "configs" / "postprocessing.json", predictor.postprocessing.to_json())
        for name, content in (("metadata", _metadata(predictor)), ("inference", _inference(predictor))):
            write_text(folder / "configs" / f"{name}.json", json.dumps(content, indent=2) + "\n")
        write_text(folder / "docs" / "README.md", _readme(predictor))
    return output


def bundle_network(plan: str, checkpoint: str | None = None, *, num_networks: int = 1) -> nn.Module:
    """Build the network of a bundle.

    Args:
        plan: File of the plan.
        checkpoint: File of the weights. `None`: random weights.
        num_networks: Networks whose logits are averaged.

    Returns:
        The network in evaluation mode. It takes images of shape (batch, channel, *space) and returns logits of shape
        (batch, class, *space).

    Raises:
        InputError: A file is missing or damaged.
    """
    document = Plan.read(Path(plan))
    networks = [network_of(document) for _ in range(num_networks)]
    network = networks[0] if num_networks == 1 else LogitEnsemble(networks)
    if checkpoint is not None:
        try:
            weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged files raise many kinds of errors
            raise InputError(
                f"{checkpoint}: expected weights of PyTorch, got a missing or damaged file ({type(error).__name__}). "
                "Export the bundle again."
            ) from error
        load_weights(network, weights, source=Path(checkpoint))
    return network.eval()


def bundle_predictor(network: nn.Module, plan: str, *, device: str, model: str) -> Predictor:
    """Return the predictor of a bundle.

    Args:
        network: Network from `bundle_network`.
        plan: File of the plan. The file `postprocessing.json` lies beside it.
        device: Name of the device.
        model: Source of the network, for the record of predictions.
    """
    return Predictor(
        Plan.read(Path(plan)),
        network,
        device=torch.device(device),
        model=model,
        postprocessing=PostprocessingSpec.read(Path(plan).with_name("postprocessing.json")),
    )


def _input_names(plan: Plan) -> list[str]:
    """Return the names of the input channels."""
    reach = plan.preprocessing.neighbour_slices
    names = plan.dataset.channel_names
    if reach == 0:
        return list(names)
    return [f"{name}, slice {offset:+d}" for offset in range(-reach, reach + 1) for name in names]


def _metadata(predictor: Predictor) -> dict[str, Any]:
    """Return the description of the bundle."""
    plan, versions = predictor.plan, installed_versions("torch", "numpy")
    dataset = plan.dataset
    size = list(plan.sampling.patch_size)
    outputs = [*dataset.foreground] if dataset.has_regions else ["background", *dataset.foreground]
    common = {"spatial_shape": size, "dtype": "float32", "value_range": [], "is_patch_data": True}
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by scanseg {__version__}"},
        "monai_version": _OLDEST_MONAI,
        "pytorch_version": versions["torch"].partition("+")[0],
        "numpy_version": versions["numpy"],
        "python_version": platform.python_version(),
        "required_packages_version": {"scanseg": __version__},
        "supported_apps": {},
        "name": f"{dataset.name} by {predictor.recipe}",
        "task": f"segmentation of {', '.join(dataset.foreground)}",
        "description": f"{plan.network.kind} of scanseg for {dataset.name}, recipe {predictor.recipe}. Not a medical "
        "device.",
        "authors": "unknown",
        "copyright": "unknown",
        "data_source": dataset.name,
        "data_type": dataset.file_ending,
        "model_digest": predictor.compute_digest(),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": ", ".join(dataset.channel_names),
                    "num_channels": plan.num_inputs,
                    "channel_def": {str(number): name for number, name in enumerate(_input_names(plan))},
                    **common,
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": dataset.num_outputs,
                    "channel_def": {str(number): name for number, name in enumerate(outputs)},
                    **common,
                }
            },
        },
    }


def _inference(predictor: Predictor) -> dict[str, Any]:
    """Return the configuration that `monai.bundle run` executes."""
    plan, network = predictor.plan, predictor.network
    num_networks = len(network.networks) if isinstance(network, LogitEnsemble) else 1
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$'cuda' if torch.cuda.is_available() else 'cpu'",
        "plan": f"$@bundle_root + '/configs/{PLAN_FILE}'",
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "network_def": {
            "_target_": "scanseg.interop.bundle_network",
            "plan": "@plan",
            "checkpoint": "@checkpoint",
            "num_networks": num_networks,
        },
        "network": "$@network_def.to(@device)",
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(plan.sampling.patch_size),
            "sw_batch_size": plan.inference.window_batch,
            "overlap": plan.inference.overlap,
            "mode": "gaussian",
        },
        "predictor": {
            "_target_": "scanseg.interop.bundle_predictor",
            "network": "@network",
            "plan": "@plan",
            "device": "@device",
            "model": "@bundle_root",
        },
        "run": ["$@predictor.predict_folder(@dataset_dir, @output_dir)"],
    }


def _readme(predictor: Predictor) -> str:
    """Return the description of the bundle as Markdown."""
    dataset = predictor.plan.dataset
    return f"""# {dataset.name} by {predictor.recipe}

A bundle of MONAI, exported by scanseg {__version__}. It segments {", ".join(dataset.foreground)}. Not a medical device.

    pip install "scanseg[baselines]" fire
    python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        --dataset_dir IMAGES --output_dir OUT

`network` is the network with its weights, and `inferer` a sliding window of MONAI with the sizes of the plan. `run`
uses the preprocessing, windows and postprocessing of scanseg, so label maps equal the results of `scanseg
predict`.
"""
