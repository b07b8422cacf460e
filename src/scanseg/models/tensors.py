"""Read and write tensors as safetensors files."""

import errno
import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scanseg.errors import InputError, reason_of


def _as_stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return detached, contiguous copies in host memory."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file with the usual file permissions.

    Raises:
        OSError: The file cannot be written.
    """
    path.touch()  # safetensors makes files that only their owner can read
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(_as_stored(tensors), path)
        path.chmod(mode)
    except SafetensorError as error:
        raise OSError(errno.EIO, f"cannot be written ({error})", str(path)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        path.open("rb").close()  # safetensors reports an unreadable file as missing
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
