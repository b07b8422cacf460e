"""`scanseg weights`: verify and import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import say, show_table
from scanseg.cli.options import Device
from scanseg.cli.progress import show_progress
from scanseg.errors import UsageError
from scanseg.messages import counted
from scanseg.progress import ProgressUpdate

if TYPE_CHECKING:
    from scanseg.networks import VerificationResult


def verify(
    *records: Annotated[Path, Parameter(name="RECORD", negative=())],
    dtype: Literal["float64", "float32"] = "float64",
    device: Device = "cpu",
) -> int:
    """Rebuild networks from records of the published ones and compare outputs and gradients.

    Exit code 1 where a difference is beyond its bound.

    Args:
        records: Files with weights, input, outputs and gradients of a published network.
        dtype: Type in which the network computes.
    """
    if not records:
        raise UsageError("name at least one record: scanseg weights verify RECORD...")
    import torch

    from scanseg.networks import verify_record
    from scanseg.runtime import choose_device, memory_for

    where, precision = choose_device(device), {"float64": torch.float64, "float32": torch.float32}[dtype]
    results: list[VerificationResult] = []
    with show_progress() as progress:
        for record in records:
            progress(ProgressUpdate("verifying", len(results), len(records), record.name))
            with memory_for(f"the network of {record}", device=where):
                results.append(verify_record(record, dtype=precision, device=where))
        progress(ProgressUpdate("verifying", len(records), len(records)))
    show_table(
        ("record", "network", "output difference", "bound", "gradient difference", "bound", ""),
        [_row(record.name, result) for record, result in zip(records, results, strict=True)],
    )
    return 0 if all(result.passed for result in results) else 1


def import_checkpoint(
    checkpoint: Path,
    /,
    *,
    network: Literal["msvm-unet", "xlstm-unet", "vmamba"],
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    plan: Path | None = None,
) -> None:
    """Bring a checkpoint of a published code into a model that predicts; nothing in the file is run.

    Names that are missing or unexpected are all listed, and nothing is written then.

    Args:
        checkpoint: Lightning's `.ckpt`, nnU-Net's `checkpoint_final.pth`, VMamba's ImageNet `.pth`, or a plain state
            dict.
        network: What the weights are of; `vmamba` fits the encoder of an MSVM-UNet.
        output: Model folder to write, new; for `vmamba` a file ending in `.safetensors`.
        plan: The plan with which the model predicts, made by `scanseg plan`; not for `vmamba`.
    """
    from scanseg.models import import_weights

    record = import_weights(checkpoint, output, kind=network, plan=plan)
    if record.left_out:
        say(f"note: left out, since they are not the network's: {', '.join(record.left_out)}")
    say(
        f"{output}: {counted(record.num_tensors, 'tensor')} of {record.network} from {record.source} ({record.form})"
    )


def _row(name: str, result: "VerificationResult") -> tuple[str, ...]:
    differences = (
        result.output_difference,
        result.output_bound,
        result.gradient_difference,
        result.gradient_bound,
    )
    return (
        name,
        result.network,
        *(f"{value:.1e}" for value in differences),
        "ok" if result.passed else "FAILED",
    )
