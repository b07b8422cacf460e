"""Host memory of a prediction, measured in a new process."""

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import resource, sys, time
    import numpy as np
    import torch
    from torch import nn
    from scanseg.preprocessing.geometry import as_volume
    from scanseg.imaging import Image
    from scanseg.inference import Predictor, windows
    from scanseg.specs import CTNormalization, DatasetSpec, InferenceSpec, PlainUNetSpec, Plan
    from scanseg.specs import PreprocessingSpec, SamplingSpec

    class Cheap(nn.Module):
        '''Intensity bins without the cost of a network.'''
        def forward(self, batch):
            middles = torch.linspace(-1, 1, NUM_LABELS).view(1, -1, 1, 1, 1)
            return -(batch - middles).abs()

    NUM_LABELS, SHAPE, PATCH, SPACING, TARGET = {parameters}
    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    labels = {{"background": 0}} | {{f"label {{n}}": n for n in range(1, NUM_LABELS)}}
    plan = Plan(
        recipe="test",
        dataset=DatasetSpec(name="x", channel_names=("CT",), labels=labels, file_ending=".nii.gz"),
        num_axes=3,
        preprocessing=PreprocessingSpec(
            normalizations=(CTNormalization(lower=-1000, upper=1000, mean=0, standard_deviation=1000),),
            spacing=TARGET, image_order=1,
        ),
        sampling=SamplingSpec(patch_size=PATCH, batch_size=2),
        augmentation=(),
        network=PlainUNetSpec(features=(4, 8), kernel_sizes=((3,) * 3,) * 2, strides=((1,) * 3, (2,) * 3),
                              num_convs_encoder=(1, 1), num_convs_decoder=(1,)),
        inference=InferenceSpec(overlap=OVERLAP, window_batch=1),
    )
    volume = np.empty((1, *SHAPE), np.int16)
    volume[:] = np.linspace(-999, 999, SHAPE[2], dtype=np.int16)
    image = Image(volume, spacing=SPACING, origin=(0.0,) * 3, direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    before = peak()
    prediction = Predictor(plan, Cheap(), device=torch.device("cpu")).predict(image)
    found = prediction.label_map
    assert found.shape == SHAPE and found.dtype == np.uint8
    expected = np.abs(volume[0, 0, 0, :, None] / 1000 - np.linspace(-1, 1, NUM_LABELS)).argmin(1)
    assert (found == expected).mean() > 0.97, (found == expected).mean()
    print(before, peak())
"""


SINGLE_PROCESS = 'Predictor(plan, Cheap(), device=torch.device("cpu"))'
COARSE = 'plan.preprocessing.model_copy(update={"spacing": (1.0, 2.0, 2.0)})'
PAIR = f"""Predictor(
        plan, Cheap(), device=torch.device("cpu"),
        members=[
            Predictor(
                plan.model_copy(update={{"preprocessing": {COARSE}}}), Cheap(), device=torch.device("cpu")
            )
        ],
    )"""


def measure_memory(
    num_labels,
    shape,
    patch,
    *,
    spacing=(1.0, 1.0, 1.0),
    target=(1.0, 1.0, 1.0),
    overlap=0.5,
    limit="",
    predictor=SINGLE_PROCESS,
):
    """Return the resident bytes before and at the peak of a prediction."""
    program = textwrap.dedent(PROGRAM).format(parameters=(num_labels, shape, patch, spacing, target))
    program = program.replace("OVERLAP", str(overlap)).replace(SINGLE_PROCESS, predictor)
    if limit:
        program = program.replace("    NUM_LABELS, SHAPE", limit, 1)
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr
    before, peak = map(int, done.stdout.split())
    return before, peak


def test_logits_of_the_whole_image_are_not_held():
    """14 labels of 96x512x512 voxels are 1.4 GB of float32 logits. Slabs have at most 512 MiB."""
    before, peak = measure_memory(14, (96, 512, 512), (16, 128, 128), overlap=0.0)
    logits = 14 * 96 * 512 * 512 * 4
    assert peak - before < 0.9 * logits


@pytest.mark.slow
def test_probabilities_of_a_pair_are_not_held():
    """Measured: 1.6 GiB, mainly two slabs of logits. float16 probabilities of one plan need 0.7 GiB more."""
    before, peak = measure_memory(14, (96, 512, 512), (16, 128, 128), overlap=0.0, predictor=PAIR)
    assert peak - before < 2.2 * 2**30, (peak - before) / 2**30


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("patch", "spacing", "target"),
    [
        ((128, 128, 128), (1.0, 0.8, 0.8), (1.0, 0.8, 0.8)),
        ((64, 192, 160), (1.0, 0.8, 0.8), (1.5, 1.0, 1.0)),
    ],
    ids=["own-grid", "resampled"],
)
def test_a_large_volume_stays_under_6_gib(patch, spacing, target):
    _, peak = measure_memory(14, (600, 512, 512), patch, spacing=spacing, target=target, overlap=0.5)
    assert peak < 6 * 2**30
