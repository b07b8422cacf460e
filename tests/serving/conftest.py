"""These tests cover the server, its client and the viewer.

Models segment values above one half. A held model waits until it is released, so that the queue fills.
"""

import gzip
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from scanseg.inference import Predictor
from scanseg.progress import ProgressUpdate, ignore_progress
from scanseg.specs import DatasetSpec, InferenceSpec, NoNormalization
from tests.factories import Threshold, make_plan, plain_unet

serving = pytest.importorskip("scanseg.serving", reason="the extra serve is not installed")


class HeldPredictor(Predictor):
    """A predictor that waits in its first window until it is released or stopped."""

    release: threading.Event
    began: threading.Event

    def predict_prepared(self, prepared: Any, *, progress: Any = ignore_progress, **options: Any) -> Any:
        """See `Predictor.predict_prepared`."""
        self.began.set()
        while not self.release.is_set():
            progress(ProgressUpdate("predicting", 0, 2))
            time.sleep(0.005)
        return super().predict_prepared(prepared, progress=progress, **options)


def threshold_predictor(
    num_axes: int = 3, *, kind: type[Predictor] = Predictor, channels: tuple[str, ...] = ("MRI",)
) -> Predictor:
    """Return a predictor of the label `bright`, for values above one half."""
    patch_size = (8,) * num_axes
    plan = make_plan(
        plain_unet(num_axes),
        patch_size=patch_size,
        dataset=DatasetSpec(
            name="small",
            channel_names=channels,
            labels={"background": 0, "bright": 1},
            file_ending=".nii.gz" if num_axes == 3 else ".png",
        ),
        preprocessing={
            "normalizations": (NoNormalization(),) * len(channels),
            "crop_to_nonzero": False,
            "orientation": "RAS" if num_axes == 3 else None,
        },
        inference=InferenceSpec(),
    )
    predictor = kind(plan, Threshold(2), device=torch.device("cpu"))
    if isinstance(predictor, HeldPredictor):
        predictor.release, predictor.began = threading.Event(), threading.Event()
    return predictor


@pytest.fixture
def held() -> Iterator[HeldPredictor]:
    """Return a model that waits until it is released."""
    predictor = threshold_predictor(kind=HeldPredictor)
    assert isinstance(predictor, HeldPredictor)
    yield predictor
    predictor.release.set()


@pytest.fixture
def start(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Any]]:
    """Start servers, which stop after the test. No thread, file or logged error may remain."""
    before = set(threading.enumerate())
    with ExitStack() as stack, caplog.at_level(logging.WARNING):

        def run(models: dict[str, Predictor] | None = None, **options: Any) -> Any:
            chosen = {"bright": threshold_predictor()} if models is None else models
            limits = serving.make_limits(options.pop("limits", {}))
            server = serving.Server(chosen, port=0, limits=limits, grace_seconds=0.2, **options)
            return stack.enter_context(server)

        yield run
    assert not [each for each in set(threading.enumerate()) - before if each.name.startswith("scanseg")]
    assert "Traceback" not in caplog.text


def nifti_bytes(array: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    """Return an array (x, y, z) as the content of a compressed NIfTI file."""
    return gzip.compress(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine).to_bytes(), 1)


@pytest.fixture
def cube() -> np.ndarray:
    """Return a volume (x, y, z) with a bright box."""
    array = np.zeros((12, 10, 9), np.float32)
    array[2:6, 3:5, 1:8] = 1
    return array


@pytest.fixture
def scan(cube: np.ndarray, tmp_path: Path) -> Path:
    """Write the volume as a file."""
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(nifti_bytes(cube, np.diag([2.0, 1.0, 0.5, 1.0])))
    return path
