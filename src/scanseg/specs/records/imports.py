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


class ImportedCheckpoint(Document):
    """A checkpoint of nnU-Net that became a model."""

    fold: str
    """Fold of the training: a number, or `all`."""
    file: str
    """File of the checkpoint, relative to the folder of the training."""
    sha256: str
    """SHA-256 checksum of the file, in hexadecimal."""
    num_tensors: int
    """Number of tensors of the network. The checkpoint contains all of them."""


class NNUNetImportRecord(Document):
    """Origin of a model that was imported from nnU-Net."""

    format: Literal[1] = 1
    """Version of the file format."""
    source: str
    """Name of nnU-Net's folder."""
    dataset: str
    """Name of the data set in nnU-Net's plans."""
    plans: str
    """Name of nnU-Net's plans."""
    configuration: str
    """Name of nnU-Net's configuration, such as `3d_fullres`."""
    trainer: str
    """Name of nnU-Net's trainer class."""
    reader: str
    """Name of nnU-Net's class that read the images."""
    checkpoints: tuple[ImportedCheckpoint, ...]
    """The imported checkpoints, in the order of the members."""
    notes: tuple[str, ...] = ()
    """Differences from nnU-Net's prediction, and assumptions about the model."""
