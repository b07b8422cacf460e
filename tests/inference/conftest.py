"""These tests cover prediction: windows, resampling to the source, plans, ensembles, folders, memory.

Their fixtures give predictors of a network with a known answer.
"""

import pytest
import torch

from scanseg.inference import Predictor
from scanseg.specs import DatasetSpec, InferenceSpec, NoNormalization, SamplingSpec
from tests.factories import Threshold, make_plan, plain_unet


@pytest.fixture(name="make_plan")
def make_plan_fixture():
    """Make plans without resampling; keywords change the dataset, preprocessing, inference and sampling order."""

    def make(
        *, num_axes=3, patch_size=(8, 8, 8), dataset=None, preprocessing=None, inference=None, order=None
    ):
        spec = {
            "name": "small",
            "channel_names": ("MRI",),
            "labels": {"background": 0, "bright": 1},
            "file_ending": ".nii.gz",
        } | (dataset or {})
        steps = {
            "normalizations": (NoNormalization(),) * len(spec["channel_names"]),
            "crop_to_nonzero": False,
        } | (preprocessing or {})
        return make_plan(
            plain_unet(len(patch_size)),
            patch_size=patch_size,
            dataset=DatasetSpec(**spec),
            num_axes=num_axes,
            preprocessing=steps,
            sampling=SamplingSpec(patch_size=patch_size, batch_size=2, order=order or "random-patches"),
            inference=InferenceSpec(**(inference or {})),
        )

    return make


@pytest.fixture
def make_predictor(make_plan):
    """Make predictors whose network segments values above one half."""

    def make(network=None, **changes):
        plan = make_plan(**changes)
        return Predictor(plan, network or Threshold(plan.dataset.num_outputs), device=torch.device("cpu"))

    return make
