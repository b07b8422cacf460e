"""`scanseg warm-up`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_line
from scanseg.cli.options import COMMON, Device
from scanseg.messages import counted
from scanseg.progress_display import show_progress


def warm_up(
    plan: Annotated[Path, Parameter(name="PLAN_OR_MODEL")],
    /,
    *,
    purpose: Annotated[Literal["training", "prediction"] | None, COMMON, Parameter(name="--for")] = None,
    device: Device = "auto",
) -> None:
    """Compile the GPU kernels of a plan or model.

    Triton compiles kernels at their first use and keeps them in its cache (`TRITON_CACHE_DIR`). After a warm-up, the
    first training step or prediction starts at once. Exit code 2: the device is no GPU with CUDA.

    Args:
        plan: Plan file from `scanseg plan`, or folder of a model from `scanseg train` or `scanseg crossval`.
        purpose: Use of the kernels. Defaults to `prediction` for folders and to both for plan files.
    """
    from scanseg import api

    with show_progress() as progress:
        done = api.warm_up(plan, purpose=purpose, device=device, progress=progress)
    uses = " and ".join(done.purposes)
    kernels = counted(done.num_kernels, "kernel")
    print_line(f"{plan}: {kernels} for {uses} in {done.seconds:.0f} s on {done.device}")
