import pytest
import torch
from torch import nn

from scanseg.inference import Predictor
from scanseg.specs import (
    DatasetSpec,
    InferenceSpec,
    NoNormalization,
    PlainUNetSpec,
    Plan,
    PreprocessingSpec,
    SamplingSpec,
)


class Threshold(nn.Module):
    """Label 1 where the first channel is above one half: its answer is known."""

    def __init__(self, num_outputs=2):
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, batch):
        logits = batch.new_full((len(batch), self.num_outputs, *batch.shape[2:]), -9.0)
        logits[:, 0] = 0
        logits[:, 1] = batch[:, 0] - 0.5
        return logits


def small_network(num_axes):
    return PlainUNetSpec(
        features=(4, 8),
        kernel_sizes=((3,) * num_axes,) * 2,
        strides=((1,) * num_axes, (2,) * num_axes),
        num_convs_encoder=(1, 1),
        num_convs_decoder=(1,),
    )


@pytest.fixture
def make_plan():
    """Plans without resampling, to be changed by keyword: dataset, preprocessing, inference and Plan fields."""

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
        }
        return Plan(
            recipe="test",
            dataset=DatasetSpec(**spec),
            num_axes=num_axes,
            preprocessing=PreprocessingSpec(**(steps | (preprocessing or {}))),
            sampling=SamplingSpec(patch_size=patch_size, batch_size=2, order=order or "random-patches"),
            augmentation=(),
            network=small_network(len(patch_size)),
            inference=InferenceSpec(**(inference or {})),
        )

    return make


@pytest.fixture
def make_predictor(make_plan):
    """Predictors whose network marks what is above one half."""

    def make(network=None, **changes):
        plan = make_plan(**changes)
        return Predictor(plan, network or Threshold(plan.dataset.num_outputs), device=torch.device("cpu"))

    return make
