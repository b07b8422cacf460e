"""`scanseg serve`."""

import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from scanseg.cli.console import print_error_lines, print_line
from scanseg.cli.interrupts import Interrupt
from scanseg.cli.options import ADVANCED, COMMON, HARDWARE, Device, Precision
from scanseg.cli.remote import read_token
from scanseg.errors import UsageError
from scanseg.messages import listed

if TYPE_CHECKING:
    from scanseg.serving import Server


def serve(
    *models: Annotated[str, Parameter(name="MODEL")],
    port: Annotated[int, COMMON] = 8080,
    host: Annotated[str, COMMON] = "127.0.0.1",
    token_file: Annotated[Path | None, COMMON] = None,
    device: Device = "auto",
    precision: Annotated[Precision | None, HARDWARE] = None,
    runtime: Annotated[Literal["onnxruntime", "openvino"] | None, HARDWARE] = None,
    queue_size: Annotated[int, ADVANCED] = 10,
    max_upload_mb: Annotated[float, ADVANCED] = 1024.0,
    max_voxels: Annotated[int, ADVANCED] = 2**28,
    upload_seconds: Annotated[float, ADVANCED] = 300.0,
    job_seconds: Annotated[float, ADVANCED] = 900.0,
    keep_seconds: Annotated[float, ADVANCED] = 3600.0,
) -> None:
    """Serve models: programs send images and fetch label maps.

    One image is segmented at a time. Ctrl-C and SIGTERM stop the server when the running job has ended, at most 30 s
    later. The page /docs describes all requests.

    Args:
        models: Folders, names (`scanseg models`) or addresses of models. Clients choose a model by the last part of its
            path.
        port: Port to listen on. 0 chooses a free one.
        host: Address to listen on. Addresses that other machines reach need a token, and traffic is not encrypted.
        token_file: File with the token that clients send. Defaults to the environment variable SCANSEG_TOKEN, and to no
            token on loopback.
        precision: Number format of matrix products. `auto` is bfloat16 on a GPU that supports it, otherwise float32.
            Defaults to the precision of each training.
        runtime: Library that computes exported models. Defaults to `onnxruntime`.
        queue_size: Most jobs that wait. Further requests get the status 503 with the header Retry-After.
        max_upload_mb: Largest upload in MiB.
        max_voxels: Largest image in voxels.
        upload_seconds: Longest upload.
        job_seconds: Longest segmentation of an image.
        keep_seconds: Time after which the results of a job are removed.
    """
    if not models:
        raise UsageError("expected at least one MODEL, got none. Give a folder or a name (scanseg models).")
    print_error_lines([f"loading {listed(models)}"])

    from scanseg import api

    server = api.serve(
        models,
        host=host,
        port=port,
        token=read_token(token_file),
        limits={
            "queue_size": queue_size,
            "upload_bytes": int(max_upload_mb * 2**20),
            "voxels": max_voxels,
            "upload_seconds": upload_seconds,
            "job_seconds": job_seconds,
            "kept_seconds": keep_seconds,
        },
        device=device,
        precision=precision,
        runtime=runtime,
    )
    run_until_stopped(server, f"serving {listed(models)} at {server.url} (requests: {server.url}/docs)")


def run_until_stopped(server: "Server", line: str, *, page: str | None = None) -> None:
    """Run a server until Ctrl-C or SIGTERM.

    A second signal ends the wait for the running job.

    Args:
        server: The server.
        line: Line to print when it runs.
        page: Address to open in a browser. `None`: open nothing.
    """
    with server:
        try:
            print_line(line)
            sys.stdout.flush()
            if page is not None and not webbrowser.open(page):
                print_error_lines(["no browser was found. Open the address yourself."])
            server.wait()
        except Interrupt:
            print_error_lines(["stopping. The running job may end first. Ctrl-C again stops at once."])
