"""A loaded model that predicts cases for another process."""

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from scanseg.errors import ScansegError
from scanseg.inference import (
    CaseOptions,
    CaseToPredict,
    Prediction,
    Predictor,
    Runtime,
    is_exported,
    load,
    predict_small_case,
    segment_case,
    write_case,
)
from scanseg.progress import ignore_progress
from scanseg.specs import Plan, PredictedCase

if TYPE_CHECKING:
    from scanseg.models import Weights
    from scanseg.runtime import Precision

CALLS_AT_ONCE = 2
"""Cases in work in one process: one is segmented while the other is read, or written."""


@dataclass(frozen=True)
class ModelChoice:
    """A model and the way to load it in another process."""

    path: Path
    """Model folder, or folder of an exported model."""
    weights: "Weights" = "exported"
    """Weights to load."""
    precision: "Precision | None" = None
    """Precision of matrix products. `None`: that of the training."""
    runtime: Runtime | None = None
    """Library that computes an exported model."""


@dataclass(frozen=True)
class LoadedFacts:
    """Properties of a model that is loaded in another process."""

    plan: Plan
    """Plan of the network, or of the first network of several plans."""
    libraries: tuple[str, ...]
    """Names of the Python packages that compute."""
    device: str
    """Device with its name, or all devices."""
    model: str
    """Model folder."""
    recipe: str
    """Name of the recipe, or of all recipes."""
    precision: str
    """Type of the computation."""
    warnings: tuple[str, ...]
    """Warnings about the model."""
    digest: str
    """Model digest."""
    mirrors_by_default: bool
    """Predictions are averaged over flips unless asked for otherwise."""
    default_members: int
    """Number of averaged predictions by default."""
    members: int
    """Number of averaged predictions without flips."""
    mirrored_members: int | ScansegError
    """The same with flips, or the reason why flips are refused."""

    def describe_device(self) -> str:
        """Return the device with its name."""
        return self.device

    def compute_digest(self) -> str:
        """Return the model digest."""
        return self.digest

    def mirrors(self, *, mirror: bool | None) -> bool:
        """Return whether predictions are averaged over flips.

        Args:
            mirror: The request. `None`: as the plans say.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """
        self.num_members(mirror=mirror)
        return self.mirrors_by_default if mirror is None else mirror

    def num_members(self, *, mirror: bool | None) -> int:
        """Return the number of averaged predictions.

        Args:
            mirror: Average over flips. `None`: as the plans say.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """
        if not mirror:
            return self.default_members if mirror is None else self.members
        if isinstance(self.mirrored_members, ScansegError):
            raise self.mirrored_members
        return self.mirrored_members


@dataclass(frozen=True)
class PredictedFiles:
    """A predicted case whose files are written."""

    entry: PredictedCase
    """Entry for the record."""
    warnings: tuple[str, ...]
    """Unusual properties of the image."""


class ModelWorker:
    """A model on its device.

    Two threads may predict at the same time: the network computes one case at a time, while another case is read or
    written.
    """

    def __init__(
        self, choice: ModelChoice, device: str, num_threads: int, *, is_remote: bool = False
    ) -> None:
        """Load the model, and everything else that the first case needs.

        These are the kernels of a GPU, and the libraries of images. So all workers load them at the same time.

        Args:
            choice: The model.
            device: Name of the device.
            num_threads: Threads of the computation on a CPU.
            is_remote: Add the name of the machine to the device in records.
        """
        _set_threads(choice, num_threads)
        self._predictor: Predictor = load(
            choice.path,
            device=device,
            weights=choice.weights,
            precision=choice.precision,
            runtime=choice.runtime,
        )
        on_gpu = self._predictor.device.type == "cuda"
        if on_gpu:
            with suppress(ScansegError):  # each case has the error
                self._predictor.warm_up()
        with suppress(ScansegError, OSError):  # the first case is slower
            predict_small_case(self._predictor, segment=on_gpu)
        device_name = self._predictor.describe_device()
        self._device = f"{device_name} on {socket.gethostname()}" if is_remote else device_name
        self._lock = Lock()

    def facts(self) -> LoadedFacts:
        """Return the properties of the model."""
        predictor = self._predictor
        try:
            mirrored: int | ScansegError = predictor.num_members(mirror=True)
        except ScansegError as error:
            mirrored = error
        return LoadedFacts(
            plan=predictor.plan,
            libraries=predictor.libraries,
            device=self._device,
            model=predictor.model,
            recipe=predictor.recipe,
            precision=predictor.precision,
            warnings=predictor.warnings,
            digest=predictor.compute_digest(),
            mirrors_by_default=predictor.mirrors(mirror=None),
            default_members=predictor.num_members(mirror=None),
            members=predictor.num_members(mirror=False),
            mirrored_members=mirrored,
        )

    def predict(self, case: CaseToPredict, options: CaseOptions) -> PredictedFiles:
        """Predict a case and write its files.

        Probabilities of two cases are too large for the memory, so they are written before the next case is segmented.

        Args:
            case: The case.
            options: Options of all cases.

        Returns:
            The entry for the record. That of a failed case has the reason.
        """
        predictor = self._predictor
        try:
            prepared = predictor.prepare(case.outputs.case.images)
        except ScansegError as error:
            return self._done(write_case(predictor, case, error, options, begin=time.monotonic()))
        with self._lock:
            begin = time.monotonic()
            outcome = segment_case(predictor, case, prepared, options, progress=ignore_progress)
            write = partial(write_case, predictor, case, outcome, options, begin=begin)
            entry = write() if case.outputs.probabilities is not None else None
        warnings = outcome.warnings if isinstance(outcome, Prediction) else ()
        return self._done(entry or write(), warnings)

    def _done(self, entry: PredictedCase, warnings: tuple[str, ...] = ()) -> PredictedFiles:
        """Return the result of a case with its device."""
        return PredictedFiles(entry.model_copy(update={"device": self._device}), warnings)


def _set_threads(choice: ModelChoice, num_threads: int) -> None:
    """Set the number of threads of PyTorch. Exported models need no PyTorch."""
    if not is_exported(choice.path):
        import torch

        torch.set_num_threads(num_threads)
