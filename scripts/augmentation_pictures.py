"""Draw each augmentation on a slice of the MNI152 template.

It writes `docs/pictures/augmentations.png`:

    python scripts/augmentation_pictures.py docs/pictures/augmentations.png

It needs nilearn for the template (`pip install "scanseg[demo]"`). The strengths are the ends of nnU-Net's ranges. The
exception is noise, which is at most a tenth of the image's deviation there. It is drawn at twice this strength to be
visible in print.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scanseg.batches.batches import make_batch
from scanseg.batches.in_memory import InMemoryCases
from scanseg.demo.anatomy import read_template
from scanseg.specs import (
    AffineTransform,
    BrightnessTransform,
    ContrastTransform,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    LowResolutionTransform,
    MirrorTransform,
    SamplingSpec,
    Transform,
)

OFTEN = {"probability": 1.0}
ALWAYS = {"probability": 1.0, "channel_probability": 1.0}
STILL = {"rotation_probability": 0.0, "scale_probability": 0.0}
PANELS: Sequence[tuple[str, Transform | None]] = (
    ("original", None),
    ("rotation 30°", AffineTransform(**STILL | {"rotation_probability": 1}, rotation_degrees_range=(30, 30))),
    (
        "scaling 0.7: a smaller part",
        AffineTransform(**STILL | {"scale_probability": 1}, scale_range=(0.7, 0.7)),
    ),
    (
        "scaling 1.4: a larger part",
        AffineTransform(**STILL | {"scale_probability": 1}, scale_range=(1.4, 1.4)),
    ),
    ("shear 16°", AffineTransform(**STILL, shear_probability=1, shear_degrees_range=(16, 16))),
    ("translation 20 %", AffineTransform(**STILL, translation_probability=1, translation_range=(0.2, 0.2))),
    (
        "elastic, 12 voxels",
        AffineTransform(
            **STILL, elastic_probability=1, elastic_scale_range=(0.06, 0.06), elastic_magnitude_range=(12, 12)
        ),
    ),
    ("noise 0.2", GaussianNoiseTransform(**OFTEN, deviation_range=(0.2, 0.2))),
    ("blur 1 voxel", GaussianBlurTransform(**ALWAYS, sigma_range=(1, 1))),
    ("brightness 1.25", BrightnessTransform(**OFTEN, factor_range=(1.25, 1.25))),
    ("contrast 0.75", ContrastTransform(**OFTEN, factor_range=(0.75, 0.75))),
    ("low resolution 0.5", LowResolutionTransform(**ALWAYS, zoom_range=(0.5, 0.5))),
    ("gamma 1.5", GammaTransform(**OFTEN, gamma_range=(1.5, 1.5))),
    ("gamma 1.5, inverted", GammaTransform(**OFTEN, gamma_range=(1.5, 1.5), inverted=True)),
    ("mirrored", MirrorTransform(axes=(0,))),
)
COLUMNS = 5


def draw(path: Path) -> None:
    """Write the picture."""
    image, label_map = read_template()
    middle = image.array.shape[1] // 2
    slices = image.array[0][::-1], label_map[::-1]
    volume, labels = (np.ascontiguousarray(array[:, middle]) for array in slices)
    volume = (volume - volume.mean()) / volume.std()
    size = volume.shape
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(-(-len(PANELS) // COLUMNS), COLUMNS)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (title, transform) in zip(panels.flat, PANELS, strict=False):
        changed, changed_labels = _change(volume, labels, transform)
        axes.imshow(changed, cmap="gray", vmin=volume.min(), vmax=volume.max() * 1.2)
        axes.contour(changed_labels > 0, levels=[0.5], colors="#E69F00", linewidths=0.7)
        axes.set_title(title, fontsize="medium")
    figure.suptitle(
        f"MNI152 template, coronal slice of {size[0]} x {size[1]} voxels of 1 mm; outline: its label map"
    )
    figure.savefig(path, dpi=100)


def _change(
    volume: np.ndarray, labels: np.ndarray, transform: Transform | None
) -> tuple[np.ndarray, np.ndarray]:
    """Apply one transform to the whole slice."""
    shape = np.array([(1, *volume.shape)])
    cases = InMemoryCases(
        names=("slice",),
        images=torch.from_numpy(volume).half().reshape(1, -1),
        label_maps=torch.from_numpy(labels.astype(np.uint8)).reshape(-1),
        shapes_host=shape,
        background_value=torch.tensor([float(volume.min())]),
        locations=({},),
        annotated=None,
    )
    sampling = SamplingSpec(patch_size=volume.shape, batch_size=1, foreground_fraction=0)
    transforms = () if transform is None else (transform,)
    for seed in range(20):  # a mirror flips in half of the draws
        numbers = {"seed": seed, "stream": 0, "iteration": 0}
        batch = make_batch(cases, sampling, transforms=transforms, device=torch.device("cpu"), **numbers)
        result = batch.images[0, 0].numpy()
        if transform is None or not np.allclose(result, volume, atol=1e-2):
            break
    return result, batch.label_maps[0].numpy()


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
