"""`scanseg weights`: verify and import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_line, show_table
from scanseg.cli.options import COMMON, HARDWARE, Device, OutputFolder
from scanseg.errors import UsageError
from scanseg.messages import counted
from scanseg.progress import ProgressUpdate
from scanseg.progress_display import show_progress

if TYPE_CHECKING:
    from scanseg.networks import VerificationResult


def verify(
    *records: Annotated[Path, Parameter(name="RECORD", negative=())],
    device: Device = "cpu",
    dtype: Annotated[Literal["float64", "float32"], HARDWARE] = "float64",
) -> int:
    """Verify networks against records of the published implementations.

    Outputs and gradients are compared. The exit code is 1 if a difference exceeds its bound.

    Args:
        records: Files with weights, input, outputs and gradients of a published network.
        dtype: Number format of the computation.
    """
    if not records:
        raise UsageError("expected at least one record, got none. Run scanseg weights verify RECORD...")
    import torch

    from scanseg.networks import verify_record
    from scanseg.runtime import choose_device, memory_for

    chosen, precision = choose_device(device), {"float64": torch.float64, "float32": torch.float32}[dtype]
    results: list[VerificationResult] = []
    with show_progress() as progress:
        for record in records:
            progress(ProgressUpdate("verifying", len(results), len(records), record.name))
            with memory_for(f"the network of {record}", device=chosen):
                results.append(verify_record(record, dtype=precision, device=chosen))
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
    network: Annotated[Literal["msvm-unet", "xlstm-unet", "plain-unet", "residual-unet", "vmamba"], COMMON],
    output: OutputFolder,
    plan: Annotated[Path | None, COMMON] = None,
) -> None:
    """Import a published checkpoint as a model.

    No code in the checkpoint is executed. Missing and unexpected weights are listed together, and nothing is written
    in that case.

    Args:
        checkpoint: Lightning's `.ckpt`, nnU-Net's `checkpoint_final.pth`, VMamba's ImageNet `.pth`, or a plain state
            dict.
        network: Network of the weights. `vmamba` is the encoder of an MSVM-UNet.
        output: Model folder to write. For `vmamba`, a file ending in `.safetensors`. It must not exist.
        plan: Plan file of the model, from `scanseg plan`. Required except for `vmamba`. Defaults to none.
    """
    from scanseg.models import import_weights

    record = import_weights(checkpoint, output, kind=network, plan=plan)
    if record.left_out:
        print_line(f"note: tensors outside the network were left out: {', '.join(record.left_out)}")
    print_line(
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
