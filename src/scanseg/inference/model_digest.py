"""By what predictions of one model are told from those of another that lies, or lay, in the same folder."""

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from scanseg.inference.predictor import Predictor


def model_digest(predictor: "Predictor") -> str:
    """Return a checksum of all that decides what a predictor says: plans, weights and postprocessing.

    Args:
        predictor: The predictor; the weights of all of its networks are read.
    """
    checksum = 0
    for part in _parts(predictor):
        checksum = zlib.crc32(part, checksum)
    return f"{checksum:08x}"


def _parts(predictor: "Predictor") -> Iterator[bytes | memoryview]:
    """Give the plan, the weights and the postprocessing of a predictor, and those of the others that it asks."""
    yield predictor.plan.to_json().encode()
    yield predictor.postprocessing.to_json().encode()
    for name, tensor in predictor.network.state_dict().items():
        yield name.encode()
        yield memoryview(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for other in (predictor.first_stage, *predictor.members):
        if other is not None:
            yield from _parts(other)
