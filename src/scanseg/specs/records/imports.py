"""The record of an import: where the weights of a model that was not trained here come from."""

from typing import Literal

from scanseg.specs.base import Document


class ImportRecord(Document):
    """Written beside imported weights."""

    format: Literal[1] = 1
    source: str
    """Name of the checkpoint's file."""
    sha256: str
    """Of that file."""
    form: Literal["lightning", "nnunet", "vmamba", "state-dict"]
    """How the checkpoint was stored."""
    network: str
    """Kind of the network."""
    num_tensors: int
    """Tensors of the network, all of which were in the checkpoint."""
    left_out: tuple[str, ...]
    """Tensors of the checkpoint that are not the network's, such as buffers of a loss."""
