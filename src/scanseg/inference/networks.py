"""Networks of one plan on their device, of any library."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from scanseg.inference.arrays import Device, Network


@runtime_checkable
class Networks(Protocol):
    """Networks of one plan, ready to segment windows."""

    @property
    def device(self) -> Device:
        """Device of the computation."""

    @property
    def precision(self) -> str:
        """Type of the networks' products, such as `bfloat16`."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the Python packages that compute, for records."""

    @property
    def network(self) -> object:
        """The network itself, or the average of several networks."""

    @property
    def mean(self) -> Network:
        """Network that returns the mean logits."""

    @property
    def members(self) -> Sequence[Network]:
        """Each network alone, at least one."""

    @property
    def autocast_dtype(self) -> Any:
        """Type of products of a `torch.autocast`. `None`: float32."""

    def content(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes of all weights, for a checksum."""

    def lacks_memory(self, error: BaseException) -> bool:
        """Return whether an error reports too little memory.

        Args:
            error: Error of a pass.
        """

    def describe_device(self) -> str:
        """Return the device with its product name or its threads, for records."""
