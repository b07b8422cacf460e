"""Networks of PyTorch on their device."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from scanseg.inference.arrays import Network
from scanseg.inference.cuda_graph import CudaGraphNetwork
from scanseg.models import LogitEnsemble
from scanseg.networks import place_network
from scanseg.runtime import Precision, autocast_dtype, describe_device, lacks_memory, memory_for


class TorchNetworks:
    """One network, or the networks of a `LogitEnsemble`."""

    libraries = ("torch",)

    def __init__(
        self, network: nn.Module, *, device: torch.device | None, precision: Precision, cuda_graph: bool
    ) -> None:
        """Move a network to a device and set it to evaluation.

        Args:
            network: One network, or a `LogitEnsemble` of several.
            device: Device of the computation. `None`: the CPU.
            precision: Precision of products.
            cuda_graph: Replay passes as a CUDA graph on a GPU with CUDA.

        Raises:
            UsageError: The device does not support the precision.
            ScansegError: The network does not fit into memory.
        """
        self.device = device = device or torch.device("cpu")
        self.autocast_dtype = autocast_dtype(device, precision)
        with memory_for("the network", device=device):
            self.network = place_network(network, device).eval()
        replayed = cuda_graph and device.type == "cuda"
        self.mean: Network = CudaGraphNetwork(self.network) if replayed else self.network

    @property
    def precision(self) -> str:
        """Type of the networks' products, such as `bfloat16`."""
        return str(self.autocast_dtype or torch.float32).removeprefix("torch.")

    @property
    def members(self) -> Sequence[Network]:
        """Networks of an ensemble, or the only one."""
        if isinstance(self.network, LogitEnsemble):
            return list(self.network.networks)
        return [self.mean]

    def content(self) -> Iterator[bytes | memoryview]:
        """Yield names and values of the weights."""
        for name, tensor in self.network.state_dict().items():
            yield name.encode()
            yield memoryview(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())

    def lacks_memory(self, error: BaseException) -> bool:
        """Return whether an error reports too little memory of device or host.

        Args:
            error: Error of a pass.
        """
        return lacks_memory(error)

    def describe_device(self) -> str:
        """Return the device with its product name or its threads."""
        return describe_device(self.device)
