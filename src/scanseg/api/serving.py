"""Functions that serve models and show images in a browser."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath
from scanseg.errors import UsageError

if TYPE_CHECKING:
    from scanseg.inference import Runtime
    from scanseg.runtime import Precision
    from scanseg.serving import Server

_PACKAGES = ("starlette", "uvicorn", "python_multipart", "multipart")


def serve(
    models: AnyPath | Sequence[AnyPath],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    limits: Mapping[str, float] | None = None,
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
        limits: Values by name: `queue_size`, `upload_bytes`, `voxels`, `upload_seconds`, `job_seconds`,
            `kept_seconds`, `kept_bytes`. `None`: the defaults of the command.
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
    with _explained_imports():
        from scanseg.serving import Server, load_models, make_limits

    given = [models] if isinstance(models, str | PathLike) else models
    loaded = load_models([str(model) for model in given], device=device, precision=precision, runtime=runtime)
    return Server(loaded, host=host, port=port, token=token, limits=make_limits(limits or {}))


def view(
    image: AnyPath | Sequence[AnyPath],
    label_maps: Sequence[AnyPath] = (),
    *,
    models: Sequence[AnyPath] = (),
    output: AnyPath | None = None,
    overwrite: bool = False,
    port: int = 0,
    device: str = "auto",
) -> "Server":
    """Return a server on loopback with a page that shows an image.

    It runs in the block of a `with` statement. Its attribute `page` is the address for a browser of this machine. The
    address has a random token, so other users of the machine do not see the image.

    Args:
        image: File of the image, or the files of its channels, or a DICOM series.
        label_maps: Label maps on its grid.
        models: Folders, names or addresses of models that the page can run.
        output: File of label maps that the page saves. `None`: `NAME-corrected` with the ending of the image in the
            working folder. Numbers are appended instead of replacing files.
        overwrite: Replace the output if it exists.
        port: Port, or 0 for a free one.
        device: Device of the models.

    Raises:
        InputError: A file cannot be read, or a label map has another grid.
        UsageError: Two models have the same name, or a package is missing.
        ScansegError: The port is taken.

    Example:
        >>> import scanseg
        >>> with scanseg.view("image.png", models=["MODEL"], device="cpu") as server:
        ...     server.page.startswith("http://127.0.0.1:")
        True
    """
    with _explained_imports():
        from scanseg.serving import Viewer, load_models, serve_page

    paths = [image] if isinstance(image, str | PathLike) else image
    loaded = load_models([str(model) for model in models], device=device) if models else {}
    viewer = Viewer(
        [Path(each) for each in paths],
        [Path(each) for each in label_maps],
        loaded,
        output=None if output is None else Path(output),
        overwrite=overwrite,
    )
    return serve_page(viewer, loaded, port=port)


@contextmanager
def _explained_imports() -> Iterator[None]:
    """Explain a missing package of the extra."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise UsageError(
            f'server: expected the package {error.name}, got none. Install it by pip install "scanseg[serve]".'
        ) from error
