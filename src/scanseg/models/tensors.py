"""Read and write tensors as safetensors files."""

import errno
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scanseg.errors import InputError, reason_of
from scanseg.messages import first_lines, shortened

_MAX_REASON = 100
"""Longest reason of the library that is quoted in a message, in characters."""
_MOST_FAULTS = 1500
"""Longest list of faults in a message, in characters."""


def list_misfits(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, same_dtype: bool = False
) -> list[str]:
    """Return the differences between tensors and a network.

    Args:
        expected: Tensors of the network or the optimizer by name.
        found: Tensors of a file by name.
        same_dtype: Types must be equal. Otherwise floating-point types may differ.

    Returns:
        One text per missing or unexpected name, other shape or other type.
    """
    faults = [f"{shortened(name)} is missing" for name in expected if name not in found]
    faults += [f"{shortened(name)} is unexpected" for name in found if name not in expected]
    for name, tensor in expected.items():
        other = found.get(name)
        if other is None:
            continue
        if other.shape != tensor.shape:
            faults.append(f"{name}: expected shape {tuple(tensor.shape)}, got {tuple(other.shape)}")
        elif other.dtype != tensor.dtype and (
            same_dtype or not (other.is_floating_point() and tensor.is_floating_point())
        ):
            faults.append(f"{name}: expected type {_name(tensor)}, got {_name(other)}")
    return faults


def join_misfits(faults: Sequence[str]) -> str:
    """Join faults of tensors into one line, at most the first twenty."""
    return shortened("; ".join(first_lines(faults)), _MOST_FAULTS)


def _name(tensor: Tensor) -> str:
    """Return the name of the type of a tensor, such as `float32`."""
    return str(tensor.dtype).removeprefix("torch.")


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
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = shortened(str(error), _MAX_REASON)
        raise InputError(
            f"{path}: cannot be read: damaged, or no safetensors file ({reason}). Restore the file."
        ) from error
