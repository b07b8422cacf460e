"""The record of imported weights."""

from typing import Literal

from scanseg.specs.base import Document


class ImportRecord(Document):
    """Origin of imported weights, stored beside them."""

    format: Literal[1] = 1
    """Version of the file format."""
    source: str
    """File name of the checkpoint."""
    sha256: str
    """SHA-256 checksum of the checkpoint file, in hexadecimal."""
    form: Literal["lightning", "nnunet", "vmamba", "state-dict"]
    """Form of the checkpoint."""
    network: str
    """Kind of the network."""
    num_tensors: int
    """Number of tensors of the network. The checkpoint contains all of them."""
    left_out: tuple[str, ...]
    """Names of the checkpoint's tensors that the network does not have, such as buffers of a loss."""
