"""Functions that serve models and show images in a browser."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath

if TYPE_CHECKING:
    from scanseg.inference import Runtime
    from scanseg.runtime import Precision
    from scanseg.serving import Limits, Server


def serve(
    models: AnyPath | Sequence[AnyPath],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    limits: "Limits | None" = None,
    device: str = "auto",
    precision: "Precision | None" = None,
    runtime: "Runtime | None" = None,
) -> "Server":
    """Load models and return a server that segments images.

    It runs in the block of a `with` statement, in threads of this process.

    Args:
        models: Folders, names or addresses of models. Clients choose one by the last part of its path.
        host: Address to listen on. Others than loopback need a token.
        port: Port, or 0 for a free one.
        token: Token that clients send. `None`: no token.
        limits: Sizes, times and places in the queue. `None`: the defaults of `scanseg.serving.Limits`.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first available one.
        precision: Precision of matrix products. Defaults to that of each training.
        runtime: Library that computes exported models on the CPU: `onnxruntime` (the default) or `openvino`.

    Raises:
        InputError: A model cannot be loaded.
        UsageError: Two models have the same name, the address needs a token, or a package is missing.
        ScansegError: The port is taken.

    Example:
        >>> import scanseg
        >>> from scanseg.client import Client
        >>> with scanseg.serve("MODEL", port=0, device="cpu") as server, Client(server.url) as client:
        ...     job = client.predict("image.png", "served.png")
        ...     sorted(client.volumes(job.id))
        ['disk']
    """
    from scanseg.serving import Server, load_models

    given = [models] if isinstance(models, str | PathLike) else models
    loaded = load_models([str(model) for model in given], device=device, precision=precision, runtime=runtime)
    return Server(loaded, host=host, port=port, token=token, limits=limits)
