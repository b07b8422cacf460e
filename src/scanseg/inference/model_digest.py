"""Model digest: a checksum that recognizes a model by its content."""

import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from scanseg.inference.networks import Networks
from scanseg.specs import Plan, PostprocessingSpec


class Model(Protocol):
    """Object with networks, their plan, and optional further models."""

    @property
    def plan(self) -> Plan:
        """Plan of the networks."""

    @property
    def postprocessing(self) -> PostprocessingSpec:
        """Components to remove from label maps."""

    @property
    def temperatures(self) -> tuple[float, ...] | None:
        """Temperature of each output, if the model is calibrated."""

    @property
    def networks(self) -> Networks:
        """Networks of the plan."""

    @property
    def first_stage(self) -> "Model | None":
        """First stage of a cascade, if the model is one."""

    @property
    def members(self) -> "Sequence[Model]":
        """Models of other plans that predict together with this one."""


def compute_digest(model: Model) -> str:
    """Return the checksum of plans, weights and postprocessing of a model.

    Args:
        model: The model. The weights of all its networks are read.

    Returns:
        8 hexadecimal digits (CRC-32).
    """
    checksum = 0
    for part in _parts(model):
        checksum = zlib.crc32(part, checksum)
    return f"{checksum:08x}"


def _parts(model: Model) -> Iterator[bytes | memoryview]:
    """Yield plan, postprocessing and weights of a model and its further models."""
    yield model.plan.to_json().encode()
    yield model.postprocessing.to_json().encode()
    if model.temperatures is not None:
        yield repr(model.temperatures).encode()
    yield from model.networks.content()
    for further in (model.first_stage, *model.members):
        if further is not None:
            yield from _parts(further)
