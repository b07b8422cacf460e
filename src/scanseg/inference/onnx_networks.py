"""Networks of one plan in ONNX format, which run without PyTorch."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from scanseg.cores import choose_threads
from scanseg.errors import InputError, reason_of
from scanseg.inference.arrays import Host, Network
from scanseg.inference.sessions import Runtime, open_session, run_session
from scanseg.messages import counted
from scanseg.specs import ExportedNetwork, ExportedPart

Windows = Float32[np.ndarray, "batch channel *patch"]
Logits = Float32[np.ndarray, "batch output *patch"]


class OnnxNetworks:
    """Networks of one plan in files."""

    precision = "float32"
    autocast_dtype = None

    def __init__(self, folder: Path, part: ExportedPart, *, runtime: Runtime) -> None:
        """Read the networks of one plan.

        Args:
            folder: Folder of the files.
            part: Document of the networks.
            runtime: Library of the computation.

        Raises:
            InputError: A file is missing, damaged, or outside of the folder.
            UsageError: The library is not installed.
        """
        self.device = Host()
        self.libraries = (str(runtime),)
        self._num_threads = choose_threads(os.environ)
        self._checksums = [network.sha256 for network in part.networks]
        self.members: Sequence[Network] = [
            _open(folder, network, part.input_shape, runtime=runtime, num_threads=self._num_threads)
            for network in part.networks
        ]

    @property
    def network(self) -> Network:
        """Function from windows to mean logits, both arrays of NumPy."""
        return self.mean

    def mean(self, windows: Windows) -> Logits:
        """Return the mean logits of the networks.

        Args:
            windows: Windows (batch, channel, *patch).
        """
        total = self.members[0](windows)
        for network in self.members[1:]:
            total = total + network(windows)
        return total / np.float32(len(self.members)) if len(self.members) > 1 else total

    def content(self) -> Iterator[bytes]:
        """Yield the checksums of the files."""
        for checksum in self._checksums:
            yield checksum.encode()

    def lacks_memory(self, error: BaseException) -> bool:
        """Return whether an error reports too little memory of the host.

        Args:
            error: Error of a pass.
        """
        return isinstance(error, MemoryError)

    def describe_device(self) -> str:
        """Return the device with its threads and its library."""
        return f"cpu ({counted(self._num_threads, 'thread')}, {self.libraries[0]})"


def _open(
    folder: Path, network: ExportedNetwork, input_shape: Sequence[int], *, runtime: Runtime, num_threads: int
) -> Network:
    """Return a network as a function of windows."""
    path = folder / network.file
    session = open_session(
        read_network(folder, network),
        source=str(path),
        runtime=runtime,
        num_threads=num_threads,
        input_shape=input_shape,
    )

    def run(windows: Windows) -> Logits:
        return run_session(session, windows, source=str(path), runtime=runtime)

    return run


def read_network(folder: Path, network: ExportedNetwork) -> bytes:
    """Read a network file and compare its checksum.

    Args:
        folder: Folder of the file.
        network: Document of the network.

    Raises:
        InputError: The file is missing, is a link to another folder, or has another checksum.
    """
    path = folder / network.file
    if path.resolve().parent != folder.resolve():
        raise InputError(
            f"{path}: expected a file in its folder, got a link to {path.resolve()}. Copy the file."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
    found = hashlib.sha256(content).hexdigest()
    if found != network.sha256:
        raise InputError(
            f"{path}: expected the checksum {network.sha256[:12]}..., got {found[:12]}.... The file is damaged or of "
            "another model. Copy the whole folder again, or export the model again."
        )
    return content
